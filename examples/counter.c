/*
 * A counter in a file, shared by all processes that run this, and safe after each step: counter
 * FILE.
 */
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <upager/upager.h>

int main(int argc, char **argv)
{
	struct upager *upager;
	int r, fd = argc == 2 ? open(argv[1], O_RDWR | O_CREAT | O_CLOEXEC, 0644) : -1;
	void *at;

	if (fd < 0 || ftruncate(fd, 4096)) {
		fprintf(stderr, "usage: counter FILE\n");
		return 1;
	}
	r = upager_open(NULL, &upager);
	if (r == 0)
		r = upager_map_file(upager, fd, 0, 4096, UPAGER_SHARED, PROT_READ | PROT_WRITE, 0,
				    &at);
	if (r == 0) {
		printf("%lu\n", atomic_fetch_add((_Atomic unsigned long *)at, 1) + 1);
		r = upager_sync(upager, at, 4096);
	}
	if (r < 0)
		fprintf(stderr, "counter: %s\n", strerror(-r));
	return r < 0;
}
