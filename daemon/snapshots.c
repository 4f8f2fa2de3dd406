#include "snapshots.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <unistd.h>

#include "log.h"
#include "varlink.h"

struct snapshot_call {
	LIST_ENTRY(snapshot_call) entry;
	struct varlink_call *call; /* NULL: nobody waits any more */
	pager_task_id task;
	struct pager_snapshot_stat stat;
	uid_t uid;
	gid_t gid;
	char path[PATH_MAX];
};

void snapshots_init(struct snapshots *snapshots)
{
	LIST_INIT(&snapshots->list);
}

/* The thread's identity for files; capabilities over them go with uid 0. */
static void become(uid_t uid, gid_t gid)
{
	setfsgid(gid);
	setfsuid(uid);
}

static int open_as(const struct snapshot_call *s)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();
	int fd;

	become(s->uid, s->gid);
	fd = open(s->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		fd = -errno;
	become(uid, gid);
	return fd;
}

static void remove_as(const struct snapshot_call *s)
{
	uid_t uid = geteuid();
	gid_t gid = getegid();

	become(s->uid, s->gid);
	unlink(s->path);
	become(uid, gid);
}

static void on_cancelled(struct varlink_call *call)
{
	struct snapshot_call *s = call->state;

	s->call = NULL;
}

int snapshots_start(struct snapshots *snapshots, struct pager *pager, pager_task_id task,
		    const char *path, uid_t uid, gid_t gid, struct varlink_call *call)
{
	struct snapshot_call *s = calloc(1, sizeof(*s));
	int fd, r;

	if (!s)
		return -ENOMEM;
	s->task = task;
	s->uid = uid;
	s->gid = gid;
	r = strlen(path) < sizeof(s->path) ? 0 : -ENAMETOOLONG;
	if (r == 0) {
		strcpy(s->path, path);
		fd = open_as(s);
		r = fd < 0 ? fd : pager_snapshot(pager, task, fd, &s->stat);
		if (r < 0 && fd >= 0)
			remove_as(s);
	}
	if (r < 0) {
		free(s);
		return r;
	}
	s->call = call;
	call->state = s;
	call->cancelled = on_cancelled;
	LIST_INSERT_HEAD(&snapshots->list, s, entry);
	return 0;
}

void snapshots_ended(struct snapshots *snapshots, pager_task_id task, int error, uint64_t lost)
{
	struct snapshot_call *s;

	LIST_FOREACH (s, &snapshots->list, entry)
		if (s->task == task)
			break;
	if (!s)
		return;
	LIST_REMOVE(s, entry);
	if (error)
		remove_as(s);
	else
		log_info("snapshot %s: %" PRIu64 " bytes, %" PRIu64 " lost, writers waited %" PRIu64
			 " µs at most", s->path, s->stat.resident + s->stat.evicted, lost,
			 s->stat.stall_ns / 1000);
	if (s->call && error)
		varlink_error(s->call, "io.upager.Pager.Failed",
			      json_pack("{s:s,s:i}", "what", "the snapshot", "errno", error));
	else if (s->call)
		varlink_reply(s->call,
			      json_pack("{s:I,s:I,s:I,s:I}", "resident",
					(json_int_t)s->stat.resident, "evicted",
					(json_int_t)s->stat.evicted, "lost", (json_int_t)lost,
					"stall_us", (json_int_t)(s->stat.stall_ns / 1000)),
			      false);
	free(s);
}
