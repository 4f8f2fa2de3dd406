/* tier/: real files through a real ring; filters; what is refused. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/util.h"
#include "tier/tier.h"

static char folder[] = "/var/tmp/upager-tier-XXXXXX";
static char path[64];
static struct uring uring;
static struct tier *tier;
static int dir;
static char *buffer;

static void begin(void)
{
	cr_assert(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/swap", folder);
	dir = open(folder, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	cr_assert_eq(uring_init(&uring, 16, 1), 0);
	cr_assert_eq(posix_memalign((void **)&buffer, PAGE_SIZE, 64 * PAGE_SIZE), 0);
}

static void end(void)
{
	if (tier)
		slots_done(&tier->slots, dir, "slots");
	tier_close(tier);
	free(buffer);
	uring_done(&uring);
	close(dir);
	unlink(path);
	cr_expect_eq(rmdir(folder), 0, "something was left");
}

TestSuite(tier, .init = begin, .fini = end, .timeout = 20);

static int open_file(uint64_t size, bool direct, uint32_t *ret_slots)
{
	return tier_file_open(&(struct tier_file_options){
				      .path = path, .size = size, .direct = direct, .create = true},
			      &tier, ret_slots);
}

static void open_with_slots(bool direct)
{
	uint32_t n = 0;

	cr_assert_eq(open_file(4 << 20, direct, &n), 0);
	cr_assert_eq(n, 1024);
}

static void add_slots(void)
{
	cr_assert_eq(slots_init(&tier->slots, dir, "slots", 1, 1024, 7), 0);
}

struct transfer {
	struct tier_io io;
	int result;
	unsigned ended;
};

static void finished(struct tier_io *io, int error)
{
	struct transfer *transfer = container_of(io, struct transfer, io);

	transfer->result = error;
	transfer->ended++;
}

static int transfer(bool write, uint32_t slot, uint32_t n, int buffer_index)
{
	struct transfer t = {.io = {.uring = &uring, .buffer = buffer, .buffer_index = buffer_index,
				    .slot = slot, .n = n, .write = write, .finished = finished}};
	uint64_t until = now_ns() + 5000 * MS;

	tier_submit(tier, &t.io);
	while (!t.ended && now_ns() < until)
		uring_run(&uring, 10 * MS);
	cr_assert_eq(t.ended, 1);
	return t.result;
}

static void round_trip(bool direct, bool registered)
{
	struct tier_stat stat;
	int index = -1;

	open_with_slots(direct);
	add_slots();
	if (registered && uring_set_buffer(&uring, 0, buffer, 64 * PAGE_SIZE) == 0)
		index = 0;
	for (unsigned i = 0; i < 64 * PAGE_SIZE / 4; i++)
		((uint32_t *)buffer)[i] = i * 2654435761u;
	cr_assert_eq(transfer(true, 960, 64, index), 0, "the last slots");
	memset(buffer, 0, 64 * PAGE_SIZE);
	cr_assert_eq(transfer(false, 962, 3, index), 0);
	for (unsigned i = 0; i < 3 * PAGE_SIZE / 4; i++)
		cr_assert_eq(((uint32_t *)buffer)[i], (i + 2 * PAGE_SIZE / 4) * 2654435761u);
	cr_assert_eq(((uint32_t *)buffer)[3 * PAGE_SIZE / 4], 0, "no more than was asked for");
	tier_stat(tier, &stat);
	cr_expect_eq(stat.size, 4 << 20);
	cr_expect_eq(stat.pages_out, 64);
	cr_expect_eq(stat.pages_in, 3);
	cr_expect_eq(stat.errors, 0);
	cr_expect(!stat.direct || direct);
	cr_expect_eq(tier->ops->flush(tier), 0);
}

Test(tier, direct)
{
	round_trip(true, false);
}

Test(tier, direct_registered)
{
	round_trip(true, true);
}

Test(tier, buffered)
{
	round_trip(false, false);
}

Test(tier, truncated_behind_its_back)
{
	struct tier_stat stat;

	open_with_slots(true);
	add_slots();
	cr_assert_eq(truncate(path, 0), 0);
	cr_expect_eq(transfer(false, 10, 1, -1), -EIO);
	tier_stat(tier, &stat);
	cr_expect_eq(stat.errors, 1);
}

Test(tier, beyond_the_end, .signal = SIGABRT)
{
	open_with_slots(true);
	add_slots();
	/* It ends here, and nobody tidies up after it. */
	unlinkat(dir, "slots", 0);
	unlink(path);
	rmdir(folder);
	transfer(true, 1020, 5, -1);
}

Test(tier, error_filter)
{
	struct tier_stat stat;

	open_with_slots(true);
	cr_assert_eq(tier_error_open(3, tier, &tier), 0);
	add_slots();
	for (unsigned i = 1; i <= 9; i++)
		cr_expect_eq(transfer(true, i, 1, -1), i % 3 ? 0 : -EIO, "%u", i);
	tier_stat(tier, &stat);
	cr_expect_eq(stat.errors, 3, "%lu", stat.errors);
	cr_expect_str_eq(tier->path, path);
	cr_expect_eq(tier->ops->flush(tier), 0);
}

Test(tier, delay_filter)
{
	uint64_t start;

	open_with_slots(true);
	cr_assert_eq(tier_delay_open(60000, tier, &tier), 0);
	add_slots();
	memset(buffer, 0x5a, PAGE_SIZE);
	start = now_ns();
	cr_expect_eq(transfer(true, 7, 1, -1), 0);
	cr_expect(now_ns() - start >= 60 * MS);
	memset(buffer, 0, PAGE_SIZE);
	cr_expect_eq(transfer(false, 7, 1, -1), 0);
	cr_expect_eq(buffer[100], 0x5a);
}

/* ---- opening ---- */

Test(tier, too_small)
{
	uint32_t n;

	cr_expect_eq(open_file((1 << 20) - 4096, true, &n), -EINVAL);
	cr_expect_null(tier);
	cr_expect(access(path, F_OK) != 0, "what it had made is gone");
}

Test(tier, missing)
{
	const struct tier_file_options options = {.path = path, .size = 4 << 20};
	uint32_t n;

	cr_expect_eq(tier_file_open(&options, &tier, &n), -ENOENT);
	snprintf(path, sizeof(path), "%s/no/swap", folder);
	cr_expect_eq(open_file(4 << 20, true, &n), -ENOENT);
}

Test(tier, not_a_file)
{
	const struct tier_file_options device = {.path = "/dev/null", .size = 4 << 20};
	const struct tier_file_options directory = {.path = folder, .size = 4 << 20};
	uint32_t n;

	cr_expect_eq(tier_file_open(&device, &tier, &n), -ENOTBLK);
	cr_expect_eq(tier_file_open(&directory, &tier, &n), -EISDIR);
	cr_expect_null(tier);
}

Test(tier, in_use)
{
	struct tier *other = NULL;
	uint32_t n;
	const struct tier_file_options options = {.path = path, .size = 4 << 20, .create = true};

	open_with_slots(true);
	cr_expect_eq(tier_file_open(&options, &other, &n), -EBUSY);
	cr_expect_eq(access(path, F_OK), 0, "the other's file is left alone");
}

Test(tier, existing_file_stays)
{
	struct tier_file_options options = {.path = path, .preallocate = true};
	struct tier_stat stat;
	uint32_t n;
	int fd = open(path, O_RDWR | O_CREAT, 0600);

	cr_assert(fd >= 0 && ftruncate(fd, 2 << 20) == 0);
	close(fd);
	cr_assert_eq(tier_file_open(&options, &tier, &n), 0);
	cr_expect_eq(n, 512, "its own size");
	tier_stat(tier, &stat);
	cr_expect(stat.preallocated);
	tier_close(tier);
	tier = NULL;
	cr_expect_eq(access(path, F_OK), 0);
}

Test(tier, mode_of_a_new_file)
{
	struct stat st;

	open_with_slots(true);
	cr_assert_eq(stat(path, &st), 0);
	cr_expect_eq(st.st_mode & 0777, 0600);
	tier_close(tier);
	tier = NULL;
	cr_expect(access(path, F_OK) != 0, "it goes with the tier");
}

/* ---- same-filled ---- */

Test(same, detect_and_fill)
{
	static const uint32_t patterns[] = {0, 1, 0xffffffff, 0xdeadbeef};
	static uint64_t page[PAGE_SIZE / 8];
	uint32_t pattern;

	for (size_t i = 0; i < ARRAY_SIZE(patterns); i++) {
		tier_same_fill(page, patterns[i]);
		cr_expect(tier_same_detect(page, &pattern));
		cr_expect_eq(pattern, patterns[i]);
		for (unsigned at = 0; at < PAGE_SIZE; at += 511) {
			((char *)page)[at] ^= 0x10;
			pattern = 77;
			cr_expect_not(tier_same_detect(page, &pattern), "byte %u", at);
			cr_expect_eq(pattern, 77, "untouched on failure");
			((char *)page)[at] ^= 0x10;
		}
	}
	/* A pattern of eight bytes is none of four. */
	for (size_t i = 0; i < ARRAY_SIZE(page); i++)
		page[i] = 0x1234567887654321;
	cr_expect_not(tier_same_detect(page, &pattern));
}
