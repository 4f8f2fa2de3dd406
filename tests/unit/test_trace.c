/* Traces: records there and back, the ring, and files that are none. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "pager/mail.h"
#include "pager/trace.h"
#include "trace_file.h"

/* ---- records ---- */

static const uint8_t fields[TRACE_N_KINDS] = {
#define X(NAME, name, mask) [TRACE_##NAME] = (mask),
	TRACE_KINDS(X)
#undef X
};

static uint64_t any(void)
{
	return ((uint64_t)random() << 33 ^ (uint64_t)random() << 11) >> (random() % 64);
}

/* A record with what its kind has. */
static struct trace_record a_record(uint64_t time)
{
	struct trace_record r = {.kind = (uint8_t)(1 + random() % (TRACE_END - 1)), .time = time};
	uint8_t has = fields[r.kind];

	r.task = has & TRACE_T ? any() : 0;
	r.tid = has & TRACE_I ? (uint32_t)any() : 0;
	r.address = has & TRACE_P ? any() & PAGE_MASK : 0;
	r.pages = has & TRACE_N ? any() >> 12 : 0;
	r.how = has & TRACE_H ? any() & 0x7f : 0;
	r.a = has & TRACE_A ? any() : 0;
	r.b = has & TRACE_B ? any() : 0;
	return r;
}

#define RECORDS 1000u

/* => how many bytes they took. */
static size_t some_records(struct trace_record records[RECORDS], uint8_t *to)
{
	struct trace_state state = {0};
	size_t n = 0;

	for (unsigned i = 0; i < RECORDS; i++) {
		records[i] = a_record(state.time + (any() >> 8));
		n += trace_encode(&state, &records[i], to + n);
	}
	return n;
}

Test(trace, there_and_back)
{
	static struct trace_record records[RECORDS];
	static uint8_t bytes[RECORDS * TRACE_RECORD_MAX];
	size_t n = some_records(records, bytes), at = 0;
	struct trace_state state = {0};
	struct trace_record r;

	for (unsigned i = 0; i < RECORDS; i++) {
		ssize_t took = trace_decode(&state, bytes + at, n - at, &r);

		cr_assert_gt(took, 0);
		cr_assert_leq(took, (ssize_t)TRACE_RECORD_MAX);
		cr_assert_eq(memcmp(&r, &records[i], sizeof(r)), 0, "record %u, kind %u", i, r.kind);
		/* What does not end is not taken, and changes nothing. */
		for (ssize_t cut = 0; cut < took; cut++) {
			struct trace_state before = state;

			cr_assert_leq(trace_decode(&before, bytes + at, (size_t)cut, &r), 0);
			cr_assert_eq(memcmp(&before, &state, sizeof(state)), 0);
		}
		at += (size_t)took;
	}
	cr_expect_eq(at, n);
	cr_expect_eq(trace_decode(&state, bytes + at, 0, &r), 0);
}

Test(trace, what_is_no_record)
{
	static const struct {
		uint8_t bytes[16];
		size_t n;
	} bad[] = {
		{{0, 0}, 2},
		{{TRACE_N_KINDS, 0}, 2},
		{{255, 1, 0}, 3},
		{{TRACE_GONE, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0}, 12},
		{{TRACE_GONE, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0}, 12},
		{{TRACE_IN, 0, 1, 1, 0}, 5}, /* before page 0 */
		{{TRACE_WAIT, 0, 1, 0xff, 0xff, 0xff, 0xff, 0x7f, 0, 0}, 10}, /* no tid */
	};

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct trace_state state = {.time = 5, .page = 0};
		struct trace_record r;

		cr_expect_eq(trace_decode(&state, bad[i].bytes, bad[i].n, &r), -EBADMSG, "%zu", i);
		cr_expect_eq(state.time, 5);
	}
}

/* ---- files ---- */

static int a_file(const void *bytes, size_t n)
{
	int fd = memfd_create("trace", MFD_CLOEXEC);

	cr_assert(fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
	return fd;
}

static int open_fd(struct trace_file *file, int fd)
{
	char path[32];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return trace_file_open(file, path);
}

static const struct trace_header good = {.magic = TRACE_MAGIC, .version = TRACE_VERSION,
					 .size = sizeof(good), .group = "g", .started = 1000};

static int try_header(struct trace_header header, size_t n)
{
	static struct trace_file file;
	int fd = a_file(&header, n), r = open_fd(&file, fd);

	trace_file_close(&file);
	close(fd);
	return r;
}

Test(trace, headers)
{
	struct trace_header header = good;

	cr_expect_eq(try_header(good, sizeof(good)), 0);
	for (size_t n = 0; n < sizeof(good); n++)
		cr_expect_eq(try_header(good, n), -EBADMSG, "%zu", n);
	header.magic ^= 1;
	cr_expect_eq(try_header(header, sizeof(header)), -EBADMSG);
	header = good;
	header.version++;
	cr_expect_eq(try_header(header, sizeof(header)), -EPROTONOSUPPORT);
	header = good;
	header.size--;
	cr_expect_eq(try_header(header, sizeof(header)), -EBADMSG);
	header = good;
	memset(header.group, 'x', sizeof(header.group));
	cr_expect_eq(try_header(header, sizeof(header)), -EBADMSG);
}

/* Whatever is in a file, it is written in all forms, or refused. */
Test(trace, hostile, .timeout = 120)
{
	static struct trace_record records[RECORDS];
	static uint8_t bytes[sizeof(good) + RECORDS * TRACE_RECORD_MAX];
	static struct trace_file file;
	FILE *out = fopen("/dev/null", "w");
	trace_writer *const writers[] = {trace_write_text, trace_write_perfetto};

	for (unsigned round = 0; round < 400; round++) {
		size_t n = sizeof(good) + some_records(records, bytes + sizeof(good));
		int fd;

		memcpy(bytes, &good, sizeof(good));
		for (unsigned i = 0; i < round % 8; i++)
			bytes[sizeof(good) + (size_t)random() % (n - sizeof(good))] = (uint8_t)random();
		fd = a_file(bytes, round % 3 ? n : sizeof(good) + (size_t)random() % (n - sizeof(good)));
		for (unsigned w = 0; w < ARRAY_SIZE(writers); w++) {
			int r;

			cr_assert_eq(open_fd(&file, fd), 0);
			r = writers[w](&file, out);
			cr_assert(r == 0 || r == -EBADMSG, "%d", r);
			trace_file_close(&file);
		}
		close(fd);
	}
	fclose(out);
}

/* ---- faults ---- */

static struct trace_fault ended[8];
static unsigned n_ended;

static void on_ended(void *context, const struct trace_fault *fault)
{
	(void)context;
	ended[n_ended++ % ARRAY_SIZE(ended)] = *fault;
}

Test(trace, ends_of_faults)
{
	static const struct {
		struct trace_record r;
		unsigned ends; /* so far */
	} steps[] = {
		{{.kind = TRACE_FAULT, .task = 1, .tid = 7, .address = 0x1000, .time = 1}, 0},
		{{.kind = TRACE_FAULT, .task = 1, .tid = 8, .address = 0x3000, .time = 2}, 0},
		{{.kind = TRACE_FAULT, .task = 2, .tid = 9, .address = 0x1000, .time = 3}, 0},
		/* not yet decided: it has not come in for them */
		{{.kind = TRACE_IN, .task = 1, .address = 0x1000, .pages = 9, .time = 4}, 0},
		{{.kind = TRACE_OUTCOME, .task = 1, .tid = 7, .address = 0x1000, .time = 5,
		  .how = TRACE_OUTCOME_zero}, 1},
		{{.kind = TRACE_OUTCOME, .task = 1, .tid = 8, .address = 0x3000, .time = 6,
		  .how = TRACE_OUTCOME_major}, 1},
		{{.kind = TRACE_OUTCOME, .task = 2, .tid = 9, .address = 0x1000, .time = 7,
		  .how = TRACE_OUTCOME_none}, 1},
		{{.kind = TRACE_IN, .task = 1, .address = 0x2000, .pages = 1, .time = 8}, 1},
		{{.kind = TRACE_IN, .task = 2, .address = 0x1000, .pages = 9, .time = 9}, 1},
		{{.kind = TRACE_WOKEN, .task = 1, .address = 0x2000, .pages = 2, .time = 10}, 2},
		{{.kind = TRACE_OUTCOME, .task = 2, .tid = 9, .address = 0x1000, .time = 11,
		  .how = TRACE_OUTCOME_minor}, 3},
		{{.kind = TRACE_FAULT, .task = 2, .tid = 9, .address = 0x5000, .time = 12}, 3},
		{{.kind = TRACE_FAULT, .task = 2, .tid = 9, .address = 0x6000, .time = 13}, 4},
		{{.kind = TRACE_GONE, .task = 2, .time = 14}, 5},
		{{.kind = TRACE_FAULT, .task = 1, .tid = 7, .address = 0x9000, .time = 15}, 5},
	};
	struct trace_follow follow = {.ended = on_ended};

	for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
		cr_assert_eq(trace_follow(&follow, &steps[i].r), 0);
		cr_assert_eq(n_ended, steps[i].ends, "step %zu: %u", i, n_ended);
	}
	trace_follow_done(&follow, 16);
	cr_assert_eq(n_ended, 6);
	cr_expect_eq(ended[1].outcome, TRACE_OUTCOME_major);
	cr_expect_eq(ended[1].ended - ended[1].begun, 8);
	cr_expect_eq(ended[2].outcome, TRACE_OUTCOME_minor);
	for (unsigned i = 0; i < n_ended; i++)
		cr_expect_eq(ended[i].end, i == 3 ? TRACE_LEFT : i == 5 ? TRACE_CUT : TRACE_DONE,
			     "%u", i);
}

/* ---- the ring ---- */

static char state_dir[] = "/dev/shm/upager-test-XXXXXX";
static struct pager *pager;
static struct pager_group *group;

static void setup(void)
{
	static char path[64];
	struct pager_swap swap = {.path = path, .size = 1 << 20, .create = true};
	struct pager_config config = {.state_dir = state_dir, .workers = 1, .readahead_pages = 1,
				      .swaps = &swap, .n_swaps = 1, .stuck_ms = 1000};

	cr_assert(mkdtemp(state_dir));
	snprintf(path, sizeof(path), "%s/swap", state_dir);
	if (pager_new(&config, &pager, NULL) < 0) {
		rmdir(state_dir);
		cr_skip("there is no io_uring");
	}
	cr_assert_eq(pager_group_new(pager, "g", 64 << 20, &group), 0);
}

static void teardown(void)
{
	if (!pager)
		return;
	pager_group_free(group);
	pager_free(pager);
	rmdir(state_dir);
}

TestSuite(ring, .init = setup, .fini = teardown, .timeout = 60);

/* In one pass of the worker, so that nothing is written meanwhile. */
static void do_puts(struct worker *w, struct mail *mail)
{
	struct call *call = container_of(mail, struct call, mail);

	(void)w;
	for (uint64_t i = 0; call->group->trace && i < call->id; i++)
		trace_put(call->group->trace,
			  &(struct trace_record){.kind = TRACE_WOKEN, .task = 1, .pages = i,
						 .address = (i * 7919 % 100000) << PAGE_SHIFT});
	sem_post(&call->done);
}

static void put(uint64_t n)
{
	struct call call = {.group = &group->group, .id = n};

	call_worker(group->group.worker, &call, do_puts);
}

static struct pager_notice wait_for_end(void)
{
	struct pollfd poll_fd = {.fd = pager_notice_fd(pager), .events = POLLIN};
	struct pager_notice notice;

	while (pager_next_notice(pager, &notice) == 0)
		cr_assert_eq(poll(&poll_fd, 1, 20000), 1, "no end");
	cr_assert_eq(notice.kind, PAGER_NOTICE_TRACE);
	return notice;
}

struct found {
	uint64_t woken, lost, records, dropped, sum;
};

static struct found read_all(int fd)
{
	static struct trace_file file;
	struct found found = {0};
	struct trace_record r;
	int more;

	cr_assert_eq(open_fd(&file, fd), 0);
	while ((more = trace_file_next(&file, &r)) > 0) {
		found.woken += r.kind == TRACE_WOKEN;
		found.lost += r.kind == TRACE_LOST ? r.a : 0;
		if (r.kind == TRACE_END) {
			cr_expect_eq(found.records, r.a);
			found.dropped = r.b;
		}
		found.records++;
	}
	cr_expect_eq(more, 0);
	cr_expect(file.whole);
	trace_file_close(&file);
	return found;
}

static uint64_t begin(int fd)
{
	uint64_t id = 0;

	cr_assert_eq(pager_trace(group, fcntl(fd, F_DUPFD_CLOEXEC, 0), &id), 0);
	return id;
}

Test(ring, all_that_finds_room)
{
	int fd = a_file("", 0);
	uint64_t id = begin(fd), other;
	struct pager_notice notice;
	struct found found;
	struct stat stat;

	cr_expect_eq(pager_trace(group, dup(fd), &other), -EBUSY);
	for (unsigned i = 0; i < 20; i++)
		put(20000);
	pager_trace_end(pager, id);
	pager_trace_end(pager, id);
	notice = wait_for_end();
	cr_expect_eq(notice.value, 0);
	cr_expect_eq(notice.trace.id, id);
	found = read_all(fd);
	cr_expect_eq(found.woken + found.lost, 400000);
	cr_expect_eq(found.lost, notice.trace.dropped);
	cr_expect_eq(found.records, notice.trace.records + 1);
	cr_expect_eq(fstat(fd, &stat), 0);
	cr_expect_eq((uint64_t)stat.st_size, notice.trace.bytes);
	begin(fd); /* and another, that ends with the group */
	close(fd);
}

Test(ring, overflows)
{
	int fd = a_file("", 0);
	uint64_t id = begin(fd);
	struct pager_notice notice;
	struct found found;

	put(3000000);
	put(10);
	pager_trace_end(pager, id);
	notice = wait_for_end();
	found = read_all(fd);
	cr_expect_gt(found.lost, 1000000);
	cr_expect_eq(found.woken + found.lost, 3000010);
	cr_expect_eq(found.lost, notice.trace.dropped);
	cr_expect_eq(found.lost, found.dropped);
	close(fd);
}

Test(ring, file_that_refuses)
{
	int fd = memfd_create("trace", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct pager_notice notice;

	cr_assert_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW), 0);
	begin(fd);
	put(100000);
	notice = wait_for_end(); /* by itself */
	cr_expect_eq(notice.value, EPERM);
	put(10); /* to nobody */
	close(fd);
	fd = a_file("", 0);
	pager_trace_end(pager, begin(fd));
	cr_expect_eq(wait_for_end().value, 0);
	cr_expect_eq(read_all(fd).woken, 0);
	close(fd);
}

/* A pipe that nobody reads. */
Test(ring, file_that_hangs)
{
	int fds[2];
	uint64_t id, begun;
	struct pager_notice notice;

	cr_assert_eq(pipe2(fds, O_CLOEXEC), 0);
	id = begin(fds[1]);
	for (unsigned i = 0; i < 20; i++)
		put(100000); /* returns: nobody waits for it */
	begun = now_ns();
	pager_trace_end(pager, id);
	notice = wait_for_end();
	cr_expect_eq(notice.value, ETIMEDOUT);
	cr_expect_gt(notice.trace.dropped, 0);
	cr_expect_lt(now_ns() - begun, 8000 * MS);
	id = begin(fds[1]); /* the group is free again */
	pager_trace_end(pager, id);
	close(fds[0]);
	close(fds[1]);
}

Test(ring, the_group_ends)
{
	int fd = a_file("", 0);
	struct pager_notice notice;

	begin(fd);
	put(1000);
	pager_group_free(group);
	group = NULL;
	notice = wait_for_end();
	cr_expect_eq(notice.value, 0);
	cr_expect_eq(read_all(fd).woken, 1000);
	close(fd);
}
