/*
 * Saver: programs that save themselves by upager_snapshot().
 *
 * `saver NAME [MIB]` fills MIB mebibytes with a pattern, does NAME, checks images and memory, and prints
 * "ok NAME". As `behave`: wrong bytes end it with status 1 and a line on stderr.
 */
#include "saver.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

struct upager *pager;
struct area area;

void ok(int r, const char *what)
{
	if (r < 0)
		wrong("%s: %s", what, strerror(-r));
}

void fails(int r, int error, const char *what)
{
	if (r != -error)
		wrong("%s: %s, not %s", what, strerror(-r), strerror(error));
}

int new_file(void)
{
	int file = memfd_create("image", MFD_CLOEXEC);

	must(file >= 0);
	return file;
}

struct image begin(const void *address, size_t length)
{
	struct image image = {.file = new_file(), .snapshot = -1};

	ok(upager_snapshot(pager, image.file, address, length, &image.snapshot), "upager_snapshot");
	return image;
}

struct image begin_area(void)
{
	return begin(area.at, area.pages * PAGE);
}

void finish(struct image *image)
{
	struct upager_snapshot_piece piece;

	ok(upager_snapshot_wait(image->snapshot, &image->result), "upager_snapshot_wait");
	ok(upager_snapshot_find(image->file, (uintptr_t)area.at, &piece), "upager_snapshot_find");
	must(piece.address == (uintptr_t)area.at && piece.length == area.pages * PAGE);
	image->at = mmap(NULL, piece.length, PROT_READ, MAP_SHARED, image->file, (off_t)piece.offset);
	must(image->at != MAP_FAILED);
}

void drop(struct image *image)
{
	if (image->at)
		munmap(image->at, area.pages * PAGE);
	close(image->snapshot);
	close(image->file);
}

bool image_has(const struct image *image, size_t i, uint64_t salt)
{
	return page_is(image->at + i * PAGE, salt);
}

bool image_begins(const struct image *image, size_t i, uint64_t salt)
{
	return *(const uint64_t *)(image->at + i * PAGE) == page_word(salt, 0);
}

void image_check(const struct image *image)
{
	if (image->result.lost)
		wrong("%lu bytes are lost", image->result.lost);
	for (size_t i = 0; i < area.pages; i++)
		if (!image_has(image, i, area.salt + i))
			wrong("page %zu of the image is not as it was", i);
}

int main(int argc, char **argv)
{
	static const struct behaviour *const lists[] = {moment_savers, end_savers};
	void *at;

	subject = argc > 1 ? argv[1] : "";
	mebibytes = argc > 2 ? strtoul(argv[2], NULL, 10) : 16;
	for (size_t i = 0; i < sizeof(lists) / sizeof(*lists); i++)
		for (const struct behaviour *b = lists[i]; b->name; b++)
			if (!strcmp(b->name, subject)) {
				ok(upager_open(NULL, &pager), "upager_open");
				ok(upager_map_anon(pager, mebibytes * MIB, &at), "upager_map_anon");
				area = (struct area){at, mebibytes * MIB / PAGE, SALT};
				area_fill(&area);
				b->run();
				upager_close(pager);
				printf("ok %s\n", subject);
				return 0;
			}
	wrong("no such behaviour");
}
