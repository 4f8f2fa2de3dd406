#include "proto/trace.h"

#include <errno.h>
#include <string.h>

#define PAGE_BITS 12
#define PAGES_MAX (1ull << 52)

static const uint8_t fields[TRACE_N_KINDS] = {
#define X(NAME, name, mask) [TRACE_##NAME] = (mask),
	TRACE_KINDS(X)
#undef X
};

int trace_header_check(const struct trace_header *header)
{
	if (header->magic != TRACE_MAGIC || header->size < sizeof(*header) ||
	    memchr(header->group, 0, sizeof(header->group)) == NULL)
		return -EBADMSG;
	return header->version == TRACE_VERSION ? 0 : -EPROTONOSUPPORT;
}

/* ---- out ---- */

static uint8_t *put(uint8_t *at, uint64_t value)
{
	for (; value >= 0x80; value >>= 7)
		*at++ = (uint8_t)(value | 0x80);
	*at++ = (uint8_t)value;
	return at;
}

static uint64_t zigzag(int64_t value)
{
	return (uint64_t)value << 1 ^ (uint64_t)(value >> 63);
}

size_t trace_encode(struct trace_state *s, const struct trace_record *r,
		    uint8_t to[static TRACE_RECORD_MAX])
{
	uint64_t page = r->address >> PAGE_BITS;
	uint8_t has = fields[r->kind], *at = to;

	*at++ = r->kind;
	at = put(at, r->time - s->time);
	s->time = r->time;
	if (has & TRACE_T)
		at = put(at, r->task);
	if (has & TRACE_I)
		at = put(at, r->tid);
	if (has & TRACE_P) {
		at = put(at, zigzag((int64_t)(page - s->page)));
		s->page = page;
	}
	if (has & TRACE_N)
		at = put(at, r->pages);
	if (has & TRACE_H)
		*at++ = r->how;
	if (has & TRACE_A)
		at = put(at, r->a);
	if (has & TRACE_B)
		at = put(at, r->b);
	return (size_t)(at - to);
}

/* ---- in ---- */

struct input {
	const uint8_t *at, *end;
	int error; /* -ENODATA: it goes on beyond the end; -EBADMSG */
};

static uint64_t get(struct input *in, uint64_t max)
{
	uint64_t value = 0;

	for (unsigned shift = 0; !in->error; shift += 7) {
		uint64_t bits;

		if (in->at == in->end) {
			in->error = -ENODATA;
			break;
		}
		bits = *in->at & 0x7f;
		if (shift > 63 || bits << shift >> shift != bits) {
			in->error = -EBADMSG;
			break;
		}
		value |= bits << shift;
		if (!(*in->at++ & 0x80))
			break;
	}
	if (!in->error && value > max)
		in->error = -EBADMSG;
	return in->error ? 0 : value;
}

static uint64_t get_page(struct input *in, uint64_t last)
{
	uint64_t value = get(in, UINT64_MAX);
	uint64_t page = last + (value >> 1 ^ -(value & 1));

	if (!in->error && page >= PAGES_MAX)
		in->error = -EBADMSG;
	return page;
}

ssize_t trace_decode(struct trace_state *s, const uint8_t *from, size_t length,
		     struct trace_record *ret)
{
	struct input in = {.at = from, .end = from + length};
	struct trace_record r = {.kind = (uint8_t)get(&in, UINT8_MAX)};
	uint64_t page = s->page;
	uint8_t has;

	if (in.error == 0 && (r.kind == TRACE_NOTHING || r.kind >= TRACE_N_KINDS))
		return -EBADMSG;
	has = in.error ? 0 : fields[r.kind];
	r.time = s->time + get(&in, UINT64_MAX - s->time);
	if (has & TRACE_T)
		r.task = get(&in, UINT64_MAX);
	if (has & TRACE_I)
		r.tid = (uint32_t)get(&in, UINT32_MAX);
	if (has & TRACE_P)
		page = get_page(&in, s->page);
	if (has & TRACE_N)
		r.pages = get(&in, PAGES_MAX);
	if (has & TRACE_H)
		r.how = (uint8_t)get(&in, 0x7f);
	if (has & TRACE_A)
		r.a = get(&in, UINT64_MAX);
	if (has & TRACE_B)
		r.b = get(&in, UINT64_MAX);
	if (in.error)
		return in.error == -ENODATA ? 0 : in.error;
	r.address = has & TRACE_P ? page << PAGE_BITS : 0;
	*s = (struct trace_state){r.time, page};
	*ret = r;
	return in.at - from;
}
