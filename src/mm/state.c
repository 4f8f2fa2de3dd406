#include "mm/state.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

int state_new(int dir_fd, const char *name, struct state **ret)
{
	int fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	struct state *state;
	int r = 0;

	if (fd < 0)
		return -errno;
	state = MAP_FAILED;
	if (ftruncate(fd, sizeof(*state)) == 0)
		state = mmap(NULL, sizeof(*state), PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_NORESERVE, fd, 0);
	if (state == MAP_FAILED)
		r = -errno;
	close(fd);
	if (r < 0) {
		unlinkat(dir_fd, name, 0);
		return r;
	}
	/* The journal must never fault a page in while the gate is held. */
	madvise(&state->journal, sizeof(state->journal), MADV_POPULATE_WRITE);
	state->header.magic = STATE_MAGIC;
	state->header.version = STATE_VERSION;
	*ret = state;
	return 0;
}

void state_free(int dir_fd, const char *name, struct state *state)
{
	munmap(state, sizeof(*state));
	unlinkat(dir_fd, name, 0);
}
