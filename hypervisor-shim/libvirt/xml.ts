/** A value that may stand in an attribute or between tags. */
export type XmlValue = string | number | boolean;

/** What XML 1.0 cannot express at all, not even escaped: control characters, lone surrogates, two non-characters. */
const inexpressible = /(?![\t\n\r])\p{Cc}|\p{Cs}|[\ufffe\uffff]/u;

/** Escapes for attributes and text alike. Throws `RangeError` on characters that XML has no form for. */
export function escapeXml(value: XmlValue): string {
  const text = String(value);
  if (inexpressible.test(text)) throw new RangeError(`not expressible in XML: ${JSON.stringify(text)}`);
  return text.replace(/[&<>"'\t\n\r]/g, character => `&#${character.charCodeAt(0)};`);
}

/** One element; children are elements, already XML, and are indented; `text` is escaped. */
export function element(
  name: string,
  attributes: Record<string, XmlValue | undefined> = {},
  children: (string | undefined)[] = [],
): string {
  const head = Object.entries(attributes)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => ` ${key}="${escapeXml(value as XmlValue)}"`)
    .join('');
  const inner = children.filter(child => child !== undefined);
  if (inner.length === 0) return `<${name}${head}/>`;
  // Lines end at \n only: to a pattern's ^ they end at U+2028, too, which may stand in a text.
  const lines = inner.flatMap(child => child.split('\n'));
  return `<${name}${head}>\n${lines.map(line => `  ${line}`).join('\n')}\n</${name}>`;
}

/** One element with text in it. */
export function textElement(
  name: string,
  text: XmlValue,
  attributes: Record<string, XmlValue | undefined> = {},
): string {
  return element(name, attributes).replace(/\/>$/, () => `>${escapeXml(text)}</${name}>`);
}
