/*
 * A store of keys and values in memory, that saves itself while it is written to: store FILE. It loads
 * what FILE holds, puts some more, and saves all of it as it was at one moment: as redis-server does,
 * but without a fork().
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <upager/upager.h>

#define ENTRIES (1u << 19)
#define PUTS    100000u

struct entry {
	uint64_t key; /* 0: none */
	uint64_t value[7];
};

/* All of it lies in one piece of memory, without pointers: it can be mapped anywhere. */
struct store {
	uint64_t n, sum; /* entries; the sum of all of them */
	struct entry entries[ENTRIES];
};

static uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 32) * 0xd6e8feb86659fd93u;
	return x ^ x >> 32;
}

static uint64_t sum_of(const struct entry *entry)
{
	uint64_t sum = mix(entry->key);

	for (unsigned i = 0; i < 7; i++)
		sum = mix(sum ^ entry->value[i]);
	return sum;
}

static int put(struct store *store, const struct entry *new)
{
	struct entry *entry = &store->entries[mix(new->key) % ENTRIES];

	if (store->n == ENTRIES - 1)
		return -ENOSPC;
	while (entry->key && entry->key != new->key)
		if (++entry == store->entries + ENTRIES)
			entry = store->entries;
	if (entry->key)
		store->sum -= sum_of(entry);
	else
		store->n++;
	*entry = *new;
	store->sum += sum_of(entry);
	return 0;
}

/* What clients would do. */
static int serve(struct store *store, unsigned puts)
{
	static uint64_t random;
	int r = 0;

	random += store->sum;
	while (puts-- && r == 0) {
		struct entry entry = {.key = 1 + mix(random++) % (ENTRIES / 2)};

		for (unsigned i = 0; i < 7; i++)
			entry.value[i] = mix(random++);
		r = put(store, &entry);
	}
	return r;
}

/* The file's store, mapped: its pages are read when they are touched. It is right if its entries are
 * those that were summed up. */
static int open_image(struct upager *upager, int fd, const struct store **ret)
{
	struct upager_snapshot_piece piece;
	const struct store *store;
	uint64_t sum = 0;
	void *at;
	int r = upager_snapshot_find(fd, 0, &piece); /* there is one: the range that was saved */

	if (r == 0 && piece.length < sizeof(*store))
		r = -EBADMSG;
	if (r == 0)
		r = upager_map_file(upager, fd, piece.offset, sizeof(*store), UPAGER_PRIVATE,
				    PROT_READ, 0, &at);
	if (r < 0)
		return r;
	store = at;
	for (unsigned i = 0; i < ENTRIES; i++)
		sum += store->entries[i].key ? sum_of(&store->entries[i]) : 0;
	if (sum != store->sum) {
		upager_unmap(upager, at, sizeof(*store));
		return -EBADMSG;
	}
	*ret = store;
	return 0;
}

/* What is mapped from a file is not in images: so the entries go to memory of our own. */
static int load(struct upager *upager, struct store *store, const char *path)
{
	const struct store *image;
	int r, fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	r = open_image(upager, fd, &image);
	close(fd);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < ENTRIES && r == 0; i++)
		if (image->entries[i].key)
			r = put(store, &image->entries[i]);
	upager_unmap(upager, (void *)image, sizeof(*image));
	printf("loaded %lu entries\n", store->n);
	return r;
}

static bool has_ended(int snapshot)
{
	return poll(&(struct pollfd){.fd = snapshot, .events = POLLIN}, 1, 0) != 0;
}

/* Goes on serving until the image is whole. */
static int write_image(struct upager *upager, struct store *store, int fd)
{
	struct upager_snapshot_result result;
	unsigned puts = 0;
	int snapshot, r = upager_snapshot(upager, fd, store, sizeof(*store), &snapshot);

	if (r < 0)
		return r;
	do {
		r = serve(store, 100);
		puts += 100;
	} while (r == 0 && !has_ended(snapshot));
	if (r == 0)
		r = upager_snapshot_wait(snapshot, &result);
	close(snapshot);
	if (r == 0)
		printf("served %u puts meanwhile, after %.1f ms\n", puts, (double)result.stall_ns / 1e6);
	return r < 0 || !result.lost ? r : -EIO;
}

/* The old file is replaced by a new one that is whole, or stays. */
static int save(struct upager *upager, struct store *store, const char *path)
{
	const uint64_t n = store->n, sum = store->sum;
	const struct store *image = NULL;
	char new[4096];
	int r, fd;

	snprintf(new, sizeof(new), "%s.new", path);
	fd = open(new, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	r = write_image(upager, store, fd);
	if (r == 0)
		r = open_image(upager, fd, &image);
	if (r == 0 && (image->n != n || image->sum != sum))
		r = -EBADMSG;
	if (image)
		upager_unmap(upager, (void *)image, sizeof(*image));
	close(fd);
	if (r == 0 && rename(new, path))
		r = -errno;
	if (r == 0)
		printf("saved %lu entries\n", n);
	else
		unlink(new);
	return r;
}

int main(int argc, char **argv)
{
	struct upager *upager;
	void *store;
	int r;

	if (argc != 2) {
		fprintf(stderr, "usage: store FILE\n");
		return 1;
	}
	r = upager_open(NULL, &upager);
	if (r == 0)
		r = upager_map_anon(upager, sizeof(struct store), &store);
	if (r == 0)
		r = load(upager, store, argv[1]);
	if (r == 0)
		r = serve(store, PUTS);
	if (r == 0)
		r = save(upager, store, argv[1]);
	if (r < 0)
		fprintf(stderr, "store: %s: %s\n", argv[1], strerror(-r));
	return r < 0;
}
