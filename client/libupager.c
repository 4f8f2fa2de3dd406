/* The public library: include/upager/upager.h says what each function promises. */
#include "upager/upager.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "attach.h"
#include "connect.h"
#include "request.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#endif

#define SOCKET_DEFAULT "/run/upager/upagerd.sock"

/* ---- open ---- */

/* Gets into the group, and attaches while the connection holds it. */
static int join(const struct upager *upager, const struct upager_options *options)
{
	struct session_join join = {.limit = options->memory};
	struct session_joined joined;
	int r, fd = daemon_connect(&upager->address, NULL, NULL);

	if (fd < 0)
		return fd;
	session_header_init(&join.header, SESSION_JOIN);
	if (options->group)
		strncpy(join.name, options->group, sizeof(join.name) - 1);
	r = session_send(fd, &join, sizeof(join), NULL, 0);
	if (r == 0)
		r = session_receive(fd, SESSION_JOINED, &joined, sizeof(joined), NULL, 0, NULL,
				    NULL);
	if (r == 0 && joined.status == 0)
		r = attach_program(&upager->address, joined.group_key,
				   getenv("UPAGER_DEBUG") != NULL);
	else if (r == 0 && joined.status != -EALREADY)
		r = joined.status;
	close(fd);
	return r;
}

int upager_open(const struct upager_options *options, struct upager **ret)
{
	static pthread_mutex_t one_at_a_time = PTHREAD_MUTEX_INITIALIZER;
	const struct upager_options defaults = {.size = sizeof(defaults)};
	struct upager *upager;
	const char *path;
	int r;

	if (!options)
		options = &defaults;
	if (options->size != sizeof(*options))
		return -EINVAL;
	if (options->group && strlen(options->group) >= sizeof((struct session_join){0}.name))
		return -ENAMETOOLONG;
	path = options->socket ? options->socket : getenv(SESSION_ENV_SOCKET);
	upager = calloc(1, sizeof(*upager));
	if (!upager)
		return -ENOMEM;
	r = daemon_address(path ? path : SOCKET_DEFAULT, &upager->address);
	if (r == 0) {
		pthread_mutex_lock(&one_at_a_time);
		r = request_explain(join(upager, options));
		pthread_mutex_unlock(&one_at_a_time);
	}
	if (r < 0) {
		free(upager);
		return r;
	}
	*ret = upager;
	return 0;
}

void upager_close(struct upager *upager)
{
	free(upager);
}

/* ---- requests ---- */

static int ask_range(const struct upager *upager, enum session_type type, const void *address,
		     size_t length, enum session_advice advice)
{
	int r, fd = daemon_connect(&upager->address, NULL, NULL);

	if (fd < 0)
		return request_explain(fd);
	r = request_range(fd, type, address, length, advice, -1);
	close(fd);
	return request_explain(r);
}

/* ---- mappings ---- */

int upager_map_anon(struct upager *upager, size_t length, void **ret)
{
	void *at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	(void)upager;
	if (at == MAP_FAILED)
		return -errno;
	*ret = at;
	return 0;
}

/* Maps the memfd without any access until the daemon serves it: a touch before that would find
 * holes where the file has bytes. */
static int map_memory(int fd, int memory, bool shared, uint64_t offset, size_t length, int prot,
		      void **ret)
{
	void *at = mmap(NULL, length, PROT_NONE, shared ? MAP_SHARED : MAP_PRIVATE, memory,
			(off_t)offset);
	int r;

	if (at == MAP_FAILED)
		return -errno;
	r = request_range(fd, SESSION_MAPPED, at, length, SESSION_ADVICE_NORMAL, -1);
	if (r == 0 && mprotect(at, length, prot))
		r = -errno;
	if (r < 0) {
		munmap(at, length);
		return r;
	}
	*ret = at;
	return 0;
}

int upager_map_file(struct upager *upager, int fd, uint64_t offset, size_t length, unsigned flags,
		    int prot, size_t page_size_hint, void **ret)
{
	bool shared = flags == UPAGER_SHARED;
	struct session_map map = {.shared = shared, .unit = page_size_hint};
	struct session_reply reply;
	int r, socket, memory = -1;

	if ((flags != UPAGER_PRIVATE && flags != UPAGER_SHARED) || offset % PAGE || !length ||
	    length > SIZE_MAX - PAGE)
		return -EINVAL;
	socket = daemon_connect(&upager->address, NULL, NULL);
	if (socket < 0)
		return request_explain(socket);
	session_header_init(&map.header, SESSION_MAP);
	r = session_send(socket, &map, sizeof(map), &fd, 1);
	if (r == 0)
		r = request_reply(socket, &reply, &memory);
	if (r == 0) {
		/* A shared mapping that can't be written to sees what others write as a private one
		 * does, and only that can be served. */
		if (shared && prot & PROT_WRITE && !reply.writable)
			r = -EACCES;
		else
			r = map_memory(socket, memory, shared && reply.writable, offset,
				       page_up(length), prot, ret);
		close(memory);
	}
	close(socket);
	return request_explain(r);
}

int upager_unmap(struct upager *upager, void *address, size_t length)
{
	(void)upager;
	return munmap(address, length) ? -errno : 0;
}

int upager_advise(struct upager *upager, void *address, size_t length, enum upager_advice advice)
{
	static const enum session_advice told[] = {
		[UPAGER_NORMAL] = SESSION_ADVICE_NORMAL,
		[UPAGER_SEQUENTIAL] = SESSION_ADVICE_SEQUENTIAL,
		[UPAGER_RANDOM] = SESSION_ADVICE_RANDOM,
		[UPAGER_COLD] = SESSION_ADVICE_COLD,
	};

	switch (advice) {
	case UPAGER_NORMAL:
	case UPAGER_SEQUENTIAL:
	case UPAGER_RANDOM:
	case UPAGER_COLD:
		return ask_range(upager, SESSION_ADVISE, address, length, told[advice]);
	case UPAGER_WILLNEED:
		return madvise(address, page_up(length), MADV_POPULATE_READ) ? -errno : 0;
	case UPAGER_DONTNEED:
		return madvise(address, page_up(length), MADV_DONTNEED) ? -errno : 0;
	default:
		return -EINVAL;
	}
}

int upager_sync(struct upager *upager, void *address, size_t length)
{
	return ask_range(upager, SESSION_SYNC, address, length, SESSION_ADVICE_NORMAL);
}

int upager_stat(struct upager *upager, struct upager_stat *ret)
{
	struct session_stat stat;
	struct session_figures figures;
	int r, fd = daemon_connect(&upager->address, NULL, NULL);

	if (fd < 0)
		return request_explain(fd);
	session_header_init(&stat.header, SESSION_STAT);
	r = session_send(fd, &stat, sizeof(stat), NULL, 0);
	if (r == 0)
		r = session_receive(fd, SESSION_FIGURES, &figures, sizeof(figures), NULL, 0, NULL,
				    NULL);
	close(fd);
	if (r == 0 && figures.status < 0)
		r = figures.status;
	if (r < 0)
		return request_explain(r);
	*ret = (struct upager_stat){
		.limit = figures.limit,
		.resident = figures.resident,
		.peak = figures.peak,
		.evicted = figures.evicted,
		.minor = figures.minor,
		.major = figures.major,
		.image_limit = figures.image_limit,
		.image_resident = figures.image_resident,
		.image_dirty = figures.image_dirty,
		.snapshot = figures.snapshot,
		.snapshot_copied = figures.snapshot_copied,
	};
	return 0;
}
