/* SPDX-License-Identifier: GPL-2.0 */
/* BPF maps in user space, by the address of their definition: few entries, looked for one after the other. */
#ifndef HF_FUZZ_MAPS_DOUBLE_H
#define HF_FUZZ_MAPS_DOUBLE_H

struct map {
	const void *definition;
	__u32 type, key_bytes, value_bytes, max;
	__u32 n; /* of a stack; of a hash, slots that were ever used */
	__u32 next; /* of an LRU: the entry that goes next */
	__u8 *used, *keys, *values;
};

#define MAPS 16
static struct map maps[MAPS];

static void make_map(const void *definition, __u32 type, __u32 key_bytes, __u32 value_bytes, __u32 max)
{
	struct map *m = maps;

	while (m->definition)
		m++;
	*m = (struct map){ definition, type, key_bytes, value_bytes, max };
	m->used = calloc(max, 1);
	m->keys = calloc(max, key_bytes ? key_bytes : 1);
	m->values = calloc(max * (type == BPF_MAP_TYPE_PERCPU_ARRAY ? CPUS : 1), value_bytes);
}
#define MAKE_MAP(map, entries) \
	make_map(&map, sizeof(*map.type) / sizeof(int), sizeof(*map.key), sizeof(*map.value), entries)
#define MAKE_STACK(map, entries) make_map(&map, BPF_MAP_TYPE_STACK, 0, sizeof(*map.value), entries)

static struct map *map_of(const void *definition)
{
	for (struct map *m = maps; m < maps + MAPS; m++)
		if (m->definition == definition)
			return m;
	REQUIRE(0, "a map that was not made");
	return 0;
}

/* As at the start, so that an input means the same each time. Of a value no more is ever used than `USED_AT_MOST`. */
#define USED_AT_MOST (100 << 10)
static void empty_map(struct map *m)
{
	__u32 entries = m->type == BPF_MAP_TYPE_PERCPU_ARRAY ? m->max * CPUS : m->max;

	m->n = m->next = 0;
	memset(m->used, 0, m->max);
	for (__u32 i = 0; i < entries; i++)
		memset(m->values + (size_t)i * m->value_bytes, 0, m->value_bytes < USED_AT_MOST ? m->value_bytes : USED_AT_MOST);
}

static __s64 slot_in(const struct map *m, const void *key)
{
	for (__u32 i = 0; i < m->n; i++)
		if (m->used[i] && !memcmp(m->keys + i * m->key_bytes, key, m->key_bytes))
			return i;
	return -1;
}

static void *bpf_map_lookup_elem(void *definition, const void *key)
{
	struct map *m = map_of(definition);
	__s64 i;

	helper_called();
	if (m->type == BPF_MAP_TYPE_ARRAY || m->type == BPF_MAP_TYPE_PERCPU_ARRAY) {
		i = *(const __u32 *)key < m->max ? *(const __u32 *)key : -1;
		if (m->type == BPF_MAP_TYPE_PERCPU_ARRAY && i >= 0)
			i += cpu * m->max;
	} else
		i = slot_in(m, key);
	return i < 0 ? 0 : m->values + (size_t)i * m->value_bytes;
}

static long bpf_map_update_elem(void *definition, const void *key, const void *value, __u64 flags)
{
	struct map *m = map_of(definition);
	__s64 i;

	helper_called();
	i = slot_in(m, key);
	if (i >= 0 && flags == BPF_NOEXIST)
		return -1;
	if (i < 0) {
		for (i = 0; i < m->max && m->used[i]; i++)
			;
		if (i == m->max && m->type != BPF_MAP_TYPE_LRU_HASH)
			return -1;
		if (i == m->max)
			i = m->next++ % m->max;
		if (i >= m->n)
			m->n = i + 1;
		m->used[i] = 1;
		memcpy(m->keys + i * m->key_bytes, key, m->key_bytes);
	}
	memcpy(m->values + i * m->value_bytes, value, m->value_bytes);
	return 0;
}

static long bpf_map_delete_elem(void *definition, const void *key)
{
	struct map *m = map_of(definition);
	__s64 i;

	helper_called();
	i = slot_in(m, key);
	if (i < 0)
		return -1;
	m->used[i] = 0;
	return 0;
}

static long bpf_map_push_elem(void *definition, const void *value, __u64 flags)
{
	struct map *m = map_of(definition);

	helper_called();
	REQUIRE(m->n < m->max, "more was given back than there is");
	memcpy(m->values + m->n++ * m->value_bytes, value, m->value_bytes);
	return 0;
}

static long bpf_map_peek_elem(void *definition, void *value)
{
	struct map *m = map_of(definition);

	helper_called();
	if (!m->n)
		return -1;
	memcpy(value, m->values + (m->n - 1) * m->value_bytes, m->value_bytes);
	return 0;
}

static long bpf_map_pop_elem(void *definition, void *value)
{
	if (bpf_map_peek_elem(definition, value))
		return -1;
	map_of(definition)->n--;
	return 0;
}

#endif
