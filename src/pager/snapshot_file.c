/* The file of a snapshot: pages that were evicted come from their slots; the table; its end. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/util.h"
#include "pager/snapshot_parts.h"

#define WRITE_MAX (1u << 30) /* bytes of one write: the kernel takes 2 GiB at most */
#define READ_TRIES 3u

/* ---- writing ---- */

static void io_free(struct snapshot_io *io)
{
	struct snapshot *s = io->snapshot;

	s->under_way--;
	s->kept -= io->kept;
	s->task->under_way--;
	worker_queue(s->task);
	free(io->buffer);
	free(io);
}

struct snapshot_io *snapshot_io_new(struct snapshot *s, uint64_t offset, uint64_t length)
{
	struct snapshot_io *io = calloc(1, sizeof(*io));

	if (!io || posix_memalign((void **)&io->buffer, PAGE_SIZE, page_up(length))) {
		snapshot_fail(s, -ENOMEM);
		free(io);
		return NULL;
	}
	io->snapshot = s;
	io->offset = offset;
	io->length = length;
	s->under_way++;
	s->task->under_way++;
	return io;
}

static void written(struct completion *completion, int result)
{
	struct snapshot_io *io = container_of(completion, struct snapshot_io, completion);

	io->snapshot->progress_at = now_ns();
	if (result <= 0) {
		snapshot_fail(io->snapshot, result < 0 ? result : -EIO);
	} else {
		io->done += (uint64_t)result;
		if (io->done < io->length && !io->snapshot->error) {
			snapshot_io_write(io);
			return;
		}
	}
	io_free(io);
}

void snapshot_io_write(struct snapshot_io *io)
{
	struct snapshot *s = io->snapshot;
	int r;

	if (!io->length) {
		io_free(io);
		return;
	}
	io->completion.done = written;
	r = uring_write(&s->task->worker->uring, s->fd, io->buffer + io->done,
			(unsigned)MIN(io->length - io->done, (uint64_t)WRITE_MAX),
			io->offset + io->done, -1, &io->completion);
	if (r < 0)
		written(&io->completion, r);
}

void snapshot_lose(struct snapshot *s, uint64_t page, uint64_t n)
{
	s->stat.lost += pages_to_bytes(n);
	if (runs_add(&s->lost, pages_to_bytes(page), n, page) < 0)
		snapshot_fail(s, -ENOMEM);
}

/* ---- from slots ---- */

static void read_on(struct snapshot_io *io)
{
	tier_submit(io->from, &io->tier);
}

/* The pages that have just been read, or refused. */
static void check_slots(struct snapshot_io *io, int error)
{
	struct snapshot *s = io->snapshot;
	const struct slots *slots = &io->from->slots;

	for (uint32_t i = 0; i < io->tier.n; i++, io->read++) {
		uint32_t slot = io->tier.slot + i;
		char *page = io->buffer + pages_to_bytes(io->read);

		if (error || slots->records[slot].sum != slot_sum(slots, page)) {
			memset(page, 0, PAGE_SIZE);
			snapshot_lose(s, bytes_to_pages(io->offset - s->header.data) + io->read, 1);
		}
		pager_slot_put(s->task->worker, word_of_slot(WORD_SWAP, 0, slot_name(slots, slot)));
	}
}

/* After an error one page at a time says which is lost. */
static void slots_read(struct tier_io *tier, int error)
{
	struct snapshot_io *io = container_of(tier, struct snapshot_io, tier);

	if (error && io->tries++ < READ_TRIES) {
		tier->n = 1;
		read_on(io);
		return;
	}
	check_slots(io, error);
	if (io->read == io->n) {
		snapshot_io_write(io);
		return;
	}
	io->tries = 0;
	tier->slot++;
	tier->buffer = io->buffer + pages_to_bytes(io->read);
	read_on(io);
}

/* Which page of the file is it? They come behind those that were resident. */
static uint64_t evicted_at(const struct snapshot *s, size_t i)
{
	return s->one_piece ? bytes_to_pages(s->evicted[i].address - s->start) : s->n_resident + i;
}

/* How many of the evicted pages from the next on lie in neighbouring slots that can be read? And are
 * neighbours in the file, too. */
static uint32_t cluster(const struct snapshot *s)
{
	const struct evicted_page *pages = s->evicted + s->evicted_done;
	struct slot first = word_slot(pages[0].word);
	const struct slots *slots = &tier_of(s->task->worker, first.tier)->slots;
	uint32_t n = 0;

	while (n < SNAPSHOT_CHUNK && s->evicted_done + n < s->n_evicted) {
		struct slot slot = word_slot(pages[n].word);

		if (word_tag(pages[n].word) != WORD_SWAP || slot.tier != first.tier ||
		    slot.index != first.index + n || slot_is(slots, slot.index, SLOT_WRITING) ||
		    evicted_at(s, s->evicted_done + n) != evicted_at(s, s->evicted_done) + n)
			break;
		n++;
	}
	return n;
}

/* A page that needs no reading: same-filled, or lost long ago. */
static void write_at_hand(struct snapshot *s, uint64_t page, word_t word)
{
	struct snapshot_io *io;

	if (word_tag(word) == WORD_POISON) {
		snapshot_lose(s, page, 1);
		return;
	}
	io = snapshot_io_new(s, snapshot_offset(s, page), PAGE_SIZE);
	if (!io)
		return;
	tier_same_fill(io->buffer, (uint32_t)word_payload(word));
	snapshot_io_write(io);
}

bool snapshot_read_next(struct snapshot *s)
{
	struct snapshot_io *io;
	uint64_t page;
	word_t word;
	uint32_t n;

	if (s->evicted_done == s->n_evicted)
		return false;
	page = evicted_at(s, s->evicted_done);
	word = s->evicted[s->evicted_done].word;
	if (word_tag(word) != WORD_SWAP || word_tier(word) == TIER_SAME) {
		write_at_hand(s, page, word);
		s->evicted_done++;
		return true;
	}
	n = cluster(s);
	io = n ? snapshot_io_new(s, snapshot_offset(s, page), pages_to_bytes(n)) : NULL;
	if (!io)
		return false;
	io->n = n;
	io->from = tier_of(s->task->worker, word_tier(word));
	io->tier.uring = &s->task->worker->uring;
	io->tier.buffer = io->buffer;
	io->tier.buffer_index = -1;
	io->tier.slot = word_slot(word).index;
	io->tier.n = n;
	io->tier.finished = slots_read;
	s->evicted_done += n;
	read_on(io);
	return true;
}

void snapshot_put_evicted(struct snapshot *s)
{
	while (s->evicted_done < s->n_evicted)
		pager_slot_put(s->task->worker, s->evicted[s->evicted_done++].word);
}

/* ---- what makes it a file ---- */

static int list_runs(struct snapshot *s)
{
	int r = 0;

	if (s->one_piece)
		return runs_add(&s->table, s->start, s->header.n_pages, 0);
	for (size_t i = 0; i < s->runs.n && r == 0; i++)
		r = runs_add(&s->table, s->runs.list[i].address, s->runs.list[i].pages,
			     s->runs.list[i].first);
	for (size_t i = 0; i < s->n_evicted && r == 0; i++)
		r = runs_add(&s->table, s->evicted[i].address, 1, evicted_at(s, i));
	return r;
}

int snapshot_lay_out(struct snapshot *s)
{
	s->header.n_pages = s->one_piece ? bytes_to_pages(s->end - s->start) : s->n_resident + s->n_evicted;
	s->n_pending = s->n_resident;
	s->copied = calloc(s->header.n_pages / 64 + 1, sizeof(*s->copied));
	if (!s->copied || list_runs(s) < 0)
		return -ENOMEM;
	s->header.n_runs = s->table.n;
	s->header.data =
		page_up(sizeof(s->header) + s->table.n * sizeof(struct snapshot_run));
	return 0;
}

/* Header and runs, without the magic. */
static void write_table(struct snapshot *s)
{
	struct snapshot_io *io = snapshot_io_new(s, 0, s->header.data);
	struct snapshot_run *run;

	if (!io)
		return;
	s->header.version = SNAPSHOT_VERSION;
	s->header.pid = s->task->pid;
	memset(io->buffer, 0, s->header.data);
	memcpy(io->buffer, &s->header, sizeof(s->header));
	run = (void *)(io->buffer + sizeof(s->header));
	runs_sort(&s->table);
	for (size_t i = 0; i < s->table.n; i++) {
		const struct run *r = &s->table.list[i];

		*run++ = (struct snapshot_run){
			.address = r->address,
			.length = pages_to_bytes(r->pages),
			.offset = snapshot_offset(s, r->first),
		};
	}
	snapshot_io_write(io);
}

/* At least one is written, that says nothing: a file that ends with a hole is as long as its pages, too. */
static void write_lost(struct snapshot *s)
{
	struct snapshot_lost *lost;
	struct snapshot_io *io;

	s->header.n_lost = s->lost.n;
	s->header.lost = snapshot_offset(s, s->header.n_pages);
	io = snapshot_io_new(s, s->header.lost, MAX(s->lost.n, (size_t)1) * sizeof(*lost));
	if (!io)
		return;
	lost = (void *)io->buffer;
	lost[0] = (struct snapshot_lost){0};
	for (size_t i = 0; i < s->lost.n; i++)
		lost[i] = (struct snapshot_lost){
			.offset = snapshot_offset(s, s->lost.list[i].first),
			.length = pages_to_bytes(s->lost.list[i].pages),
		};
	snapshot_io_write(io);
}

static void write_header(struct snapshot *s)
{
	struct snapshot_io *io = snapshot_io_new(s, 0, sizeof(s->header));

	if (!io)
		return;
	s->header.magic = SNAPSHOT_MAGIC;
	memcpy(io->buffer, &s->header, sizeof(s->header));
	snapshot_io_write(io);
}

static void synced(struct completion *completion, int result)
{
	struct snapshot *s = container_of(completion, struct snapshot, sync);

	if (result < 0)
		snapshot_fail(s, result);
	s->under_way--;
	s->task->under_way--;
	worker_queue(s->task);
}

static void sync_file(struct snapshot *s)
{
	int r;

	s->sync.done = synced;
	s->under_way++;
	s->task->under_way++;
	r = uring_sync(&s->task->worker->uring, s->fd, &s->sync);
	if (r < 0)
		synced(&s->sync, r);
}

/* The header comes when the pages are safe. */
bool snapshot_finish(struct snapshot *s)
{
	while (!s->under_way && !s->error) {
		switch (s->step++) {
		case 0:
			write_lost(s);
			write_table(s);
			break;
		case 1:
			sync_file(s);
			break;
		case 2:
			write_header(s);
			break;
		case 3:
			sync_file(s);
			break;
		default:
			return true;
		}
	}
	return !s->under_way;
}
