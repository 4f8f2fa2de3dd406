/*
 * Reads a file through upagerd, pages of it only when they are needed, and holds no more than the
 * daemon's image_memory: lazyfile FILE counts its lines.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <upager/upager.h>

static int count(struct upager *upager, int fd, size_t size)
{
	void *at;
	size_t lines = 0;
	int r = upager_map_file(upager, fd, 0, size, UPAGER_PRIVATE, PROT_READ, 0, &at);

	if (r < 0)
		return r;
	upager_advise(upager, at, size, UPAGER_SEQUENTIAL); /* a hint: it may fail */
	for (const char *c = at, *end = c + size; (c = memchr(c, '\n', (size_t)(end - c))); c++)
		lines++;
	printf("%zu\n", lines);
	return upager_unmap(upager, at, size);
}

int main(int argc, char **argv)
{
	struct upager *upager;
	struct stat st;
	int r, fd = argc == 2 ? open(argv[1], O_RDONLY | O_CLOEXEC) : -1;

	if (fd < 0 || fstat(fd, &st) || !st.st_size) {
		fprintf(stderr, "usage: lazyfile FILE (that is not empty)\n");
		return 1;
	}
	r = upager_open(NULL, &upager);
	if (r == 0) {
		r = count(upager, fd, (size_t)st.st_size);
		upager_close(upager);
	}
	if (r < 0)
		fprintf(stderr, "lazyfile: %s\n", strerror(-r));
	return r < 0;
}
