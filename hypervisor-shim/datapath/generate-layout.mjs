// Writes accessors of the structures in an object's BTF: `node generate-layout.mjs layout.o layout.generated.ts`.
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';

const [object, target] = process.argv.slice(2);
const { types } = JSON.parse(
  execFileSync('bpftool', ['-j', 'btf', 'dump', 'file', object], { maxBuffer: 1 << 26 }),
);
const byId = new Map(types.map(t => [t.id, t]));

const pascal = name =>
  name
    .replace(/^hf_/, '')
    .split('_')
    .map(word => word[0].toUpperCase() + word.slice(1))
    .join('');

/** Follows typedefs and qualifiers to the type that has a size. */
function resolve(id) {
  let t = byId.get(id);
  while (['TYPEDEF', 'CONST', 'VOLATILE'].includes(t.kind)) t = byId.get(t.type_id);
  return t;
}

const accessors = { 1: 'Uint8', 2: 'Uint16', 4: 'Uint32', 8: 'BigUint64' };

function field(member) {
  const t = resolve(member.type_id);
  const at = member.bits_offset / 8;
  const name = member.name;
  if (t.kind === 'INT' || t.kind === 'ENUM') {
    const a = accessors[t.size];
    const type = t.size === 8 ? 'bigint' : 'number';
    const order = t.size > 1 ? ', true' : '';
    return [
      `  get ${name}(): ${type} { return this.view.get${a}(this.base + ${at}${order}); }`,
      `  set ${name}(value: ${type}) { this.view.set${a}(this.base + ${at}, value${order}); }`,
    ];
  }
  if (t.kind === 'STRUCT' && t.name === 'bpf_spin_lock') return [];
  if (t.kind === 'STRUCT')
    return [
      `  get ${name}(): ${pascal(t.name)} { return new ${pascal(t.name)}(this.view, this.base + ${at}); }`,
    ];
  if (t.kind === 'ARRAY') {
    const element = resolve(t.type_id);
    if (element.kind === 'STRUCT') {
      const type = pascal(element.name);
      return [
        `  ${name}(index: number): ${type} { return new ${type}(this.view, this.base + ${at} + index * ${element.size}); }`,
      ];
    }
    const array = { 1: 'Uint8Array', 4: 'Uint32Array' }[element.size];
    return [
      `  get ${name}(): ${array} { return new ${array}(this.view.buffer, this.view.byteOffset + this.base + ${at}, ${t.nr_elems}); }`,
    ];
  }
  throw new Error(`no accessor for ${name}: ${t.kind}`);
}

const lines = [`// Generated from the BTF of ${object} by generate-layout.mjs; do not edit.`, ''];
for (const t of types) {
  if (t.kind === 'ENUM' && t.name?.startsWith('hf_')) {
    const prefix = {
      hf_opt: 'HF_OPT_',
      hf_option: 'HF_OPT_',
      hf_op: 'HF_OP_',
      hf_stat: 'HF_STAT_',
      hf_compare: 'HF_COMPARE_',
    };
    const strip = prefix[t.name] ?? 'HF_';
    lines.push(`export const ${t.name.replace(/^hf_/, '').toUpperCase()} = {`);
    for (const v of t.values) lines.push(`  ${v.name.replace(strip, '')}: ${v.val},`);
    lines.push('} as const;', '');
  }
  if (t.kind === 'STRUCT' && t.name?.startsWith('hf_')) {
    lines.push(`export class ${pascal(t.name)} {`, `  static readonly BYTES = ${t.size};`);
    lines.push('  readonly view: DataView;', '  readonly base: number;');
    lines.push(
      `  constructor(view: DataView = new DataView(new ArrayBuffer(${t.size})), base = 0) { this.view = view; this.base = base; }`,
    );
    lines.push(
      `  get bytes(): Uint8Array { return new Uint8Array(this.view.buffer, this.view.byteOffset + this.base, ${t.size}); }`,
    );
    for (const m of t.members) lines.push(...field(m));
    lines.push('}', '');
  }
}
writeFileSync(target, lines.join('\n'));
