/** One column: its heading, whether it is right-aligned (numbers), and the cell of a row. */
export interface Column<Row> {
  title: string;
  right?: boolean;
  cell: (row: Row) => string | number | undefined;
}

/** Aligned text table; a missing value is shown as `-`. */
export function table<Row>(rows: readonly Row[], columns: readonly Column<Row>[]): string {
  const cells = rows.map(row => columns.map(column => String(column.cell(row) ?? '-')));
  const widths = columns.map((column, i) =>
    Math.max(column.title.length, ...cells.map(line => line[i]!.length)),
  );
  const render = (line: readonly string[]) =>
    line
      .map((cell, i) => (columns[i]!.right ? cell.padStart(widths[i]!) : cell.padEnd(widths[i]!)))
      .join('  ')
      .trimEnd();
  return [columns.map(column => column.title), ...cells].map(render).join('\n');
}
