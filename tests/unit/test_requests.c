/* What clients ask for on connections of their own, with the fake pager. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fake_pager.h"
#include "proto/session.h"
#include "session_rig.h"
#include "sys/pidfd.h"


static void pump(void)
{
	for (unsigned i = 0; i < 10; i++) {
		uv_run(&loop, UV_RUN_NOWAIT);
		notices_drain(&notices);
		usleep(500);
	}
}

static void teardown(void)
{
	pump();
	session_teardown();
}

TestSuite(requests, .init = session_setup, .fini = teardown, .timeout = 30);

/* A connection that has had its offer. */
static int connect_session(void)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	struct session_offer offer;
	int device = -1, fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	unsigned n = 0;

	strcpy(address.sun_path, path);
	cr_assert_eq(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	pump();
	cr_assert_eq(session_receive(fd, SESSION_OFFER, &offer, sizeof(offer), &device, 1, &n, NULL),
		     0);
	if (n)
		close(device);
	return fd;
}

static void ask(int fd, enum session_type type, void *message, unsigned size)
{
	session_header_init(message, type);
	cr_assert_eq(session_send(fd, message, size, NULL, 0), 0);
	pump();
}

static int replied(int fd)
{
	struct session_reply reply;
	int r = session_receive(fd, SESSION_REPLY, &reply, sizeof(reply), NULL, 0, NULL, NULL);

	return r < 0 ? r : reply.status;
}

static bool is_closed(int fd)
{
	char byte;

	return recv(fd, &byte, 1, MSG_DONTWAIT) == 0;
}

static int join(int fd, const char *name, uint64_t limit, uint64_t *ret_key)
{
	struct session_join message = {.limit = limit};
	struct session_joined joined;

	strcpy(message.name, name);
	ask(fd, SESSION_JOIN, &message, sizeof(message));
	cr_assert_eq(session_receive(fd, SESSION_JOINED, &joined, sizeof(joined), NULL, 0, NULL,
				     NULL), 0);
	*ret_key = joined.group_key;
	return joined.status;
}

Test(requests, a_group_lives_while_its_connection_does)
{
	int a = connect_session(), b = connect_session();
	uint64_t key = 0, other = 0;

	cr_assert_eq(join(a, "lib", 1 << 24, &key), 0);
	cr_assert_eq(join(b, "lib", 1 << 28, &other), 0);
	cr_expect(key && key == other);
	cr_expect_eq(registry_group_by_key(&registry, key), registry_group(&registry, "lib"));
	close(a);
	pump();
	cr_expect(registry_group(&registry, "lib"), "the other holds it");
	close(b);
	pump();
	cr_expect_null(registry_group(&registry, "lib"));
}

Test(requests, groups_that_cannot_be)
{
	int fd = connect_session();
	char name[32];
	uint64_t key;

	cr_expect_eq(join(fd, "a name", 1 << 24, &key), -EINVAL);
	cr_expect_eq(join(fd, "small", 1, &key), -ERANGE);
	cr_expect_eq(join(fd, "large", UINT64_MAX, &key), -ERANGE);
	cr_expect_eq(join(fd, "", 0, &key), 0, "no limit, and a name is made up");
	snprintf(name, sizeof(name), "pid-%d", getpid());
	cr_expect(registry_group(&registry, name));
	close(fd);
}

Test(requests, who_is_not_attached_gets_nothing)
{
	struct session_figures figures;
	struct session_stat stat;
	struct session_map map = {.shared = 1};
	int fd = connect_session(), file = open("/dev/null", O_RDWR | O_CLOEXEC);

	session_header_init(&map.header, SESSION_MAP);
	cr_assert_eq(session_send(fd, &map, sizeof(map), &file, 1), 0);
	pump();
	cr_expect_eq(replied(fd), -ESRCH);
	cr_expect(is_closed(fd));
	close(fd);

	fd = connect_session();
	ask(fd, SESSION_STAT, &stat, sizeof(stat));
	cr_assert_eq(session_receive(fd, SESSION_FIGURES, &figures, sizeof(figures), NULL, 0, NULL,
				     NULL), 0);
	cr_expect_eq(figures.status, -ESRCH);
	close(fd);
	close(file);
}

Test(requests, malformed)
{
	struct session_map map = {0};
	struct session_range range = {.advice = 99};
	struct {
		enum session_type type;
		void *message;
		unsigned size;
		int status;
	} cases[] = {
	    {SESSION_MAP, &map, sizeof(map), -EPROTO}, /* no file */
	    {SESSION_MAP, &map, sizeof(map) - 1, -EPROTO},
	    {SESSION_MAPPED, &range, sizeof(range), -EPROTO}, /* nothing was offered */
	    {SESSION_ADVISE, &range, sizeof(range), -EINVAL},
	    {SESSION_SYNC, &range, sizeof(range) - 8, -EPROTO},
	    {SESSION_REPLY, &range, sizeof(range), -EPROTO},
	    {(enum session_type)1000, &range, sizeof(range), -EPROTO},
	};

	for (unsigned i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		int fd = connect_session();

		ask(fd, cases[i].type, cases[i].message, cases[i].size);
		cr_expect_eq(replied(fd), cases[i].status, "case %u", i);
		cr_expect(is_closed(fd), "case %u", i);
		close(fd);
	}
}

/* A worker answers; the connection is its, and ends with the answer. */
Test(requests, sync)
{
	struct session_range range = {.address = 0x10000, .length = 4096};
	int fd = connect_session();

	ask(fd, SESSION_SYNC, &range, sizeof(range));
	cr_expect_eq(replied(fd), 0);
	cr_expect(is_closed(fd));
	close(fd);
}

Test(requests, a_child_is_not_its_parent)
{
	struct session_stat stat;
	int status, fd = connect_session();
	pid_t pid = fork();

	session_header_init(&stat.header, SESSION_STAT);
	if (!pid)
		_exit(session_send(fd, &stat, sizeof(stat), NULL, 0) ? 1 : 0);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	pump();
	cr_expect_eq(replied(fd), -EPERM);
	cr_expect(is_closed(fd));
	close(fd);
}

/* ---- snapshots ---- */

static struct client *self;
static int lifeline;

/* This process is a client; => its task. */
static pager_task_id attach_self(void)
{
	struct pager_attach what = {getpid(), -1, -1, -1, -1, -1, -1, -1, 0, 0};
	struct pager_welcome welcome;
	struct group *group;
	pager_task_id id;
	int ends[2];

	cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
	lifeline = ends[1];
	cr_assert_eq(registry_create(&registry, "self", 0, &self, 1 << 24, &group), 0);
	cr_assert_eq(pager_attach(pager, group->pager, &what, &welcome, &id), 0);
	registry_task_add(&registry, group, id, 0, getpid());
	self = client_new(&clients, group, getpid(), pidfd_open_pid(getpid()), ends[0],
			  open("/proc/self/maps", O_RDONLY | O_CLOEXEC), id);
	cr_assert(self);
	registry_release(&registry, group);
	return id;
}

static void detach_self(void)
{
	client_free(self);
	pump();
	close(lifeline);
}

/* => the connection, after the request. */
static int ask_snapshot(uint64_t address, uint64_t length)
{
	struct session_range range = {.address = address, .length = length};
	int fd = connect_session(), file = memfd_create("image", MFD_CLOEXEC);

	session_header_init(&range.header, SESSION_SNAPSHOT);
	cr_assert_eq(session_send(fd, &range, sizeof(range), &file, 1), 0);
	close(file);
	pump();
	return fd;
}

static void cancel(int fd)
{
	struct session_cancel message;

	ask(fd, SESSION_CANCEL, &message, sizeof(message));
}

static struct session_ended ended(int fd)
{
	struct session_ended message;

	cr_assert_eq(session_receive(fd, SESSION_ENDED, &message, sizeof(message), NULL, 0, NULL,
				     NULL), 0);
	cr_expect(is_closed(fd));
	close(fd);
	return message;
}

Test(requests, snapshot)
{
	pager_task_id id = attach_self();
	int fd = ask_snapshot(0x10000, 8192), second;
	struct session_figures figures;
	struct session_ended end;
	struct session_stat stat;

	cr_expect_eq(fake_pager_task(pager, id)->snapshot_length, 8192);
	cr_expect_eq(replied(fd), -EAGAIN, "before its moment nothing is said");
	fake_pager_snapshot_begins(pager, id);
	pump();
	cr_expect_eq(replied(fd), 0);
	second = ask_snapshot(0, 0);
	cr_expect_eq(replied(second), -EBUSY);
	close(second);
	second = connect_session();
	ask(second, SESSION_STAT, &stat, sizeof(stat));
	cr_assert_eq(session_receive(second, SESSION_FIGURES, &figures, sizeof(figures), NULL, 0,
				     NULL, NULL), 0);
	cr_expect(figures.snapshot == 12288 && figures.snapshot_copied == 4096);
	close(second);
	fake_pager_snapshot_ends(pager, id, 0);
	pump();
	end = ended(fd);
	cr_expect(end.status == 0 && end.size == 12288 && end.lost == 4096 && end.stall_ns == 5000);
	detach_self();
}

Test(requests, snapshot_that_does_not_come_about)
{
	pager_task_id id;
	int fd = ask_snapshot(0, 0);

	cr_expect_eq(replied(fd), -ESRCH, "not attached");
	close(fd);
	id = attach_self();
	fd = ask_snapshot(1, 4096);
	cr_expect_eq(replied(fd), -EINVAL);
	close(fd);
	fd = ask_snapshot(0, 0);
	fake_pager_snapshot_ends(pager, id, EFAULT);
	pump();
	cr_expect_eq(replied(fd), -EFAULT);
	cr_expect(is_closed(fd));
	close(fd);
	detach_self();
}

Test(requests, snapshot_is_cancelled)
{
	pager_task_id id = attach_self();
	int fd = ask_snapshot(0, 0);

	cancel(fd);
	cr_expect_eq(replied(fd), -ECANCELED, "before its moment");
	close(fd);
	fd = ask_snapshot(0, 0);
	fake_pager_snapshot_begins(pager, id);
	pump();
	cr_expect_eq(replied(fd), 0);
	cancel(fd);
	cr_expect_eq(ended(fd).status, -ECANCELED);
	fd = ask_snapshot(0, 0);
	cr_expect_neq(fake_pager_task(pager, id)->snapshot, 0);
	close(fd);
	pump();
	cr_expect_eq(fake_pager_task(pager, id)->snapshot, 0, "nobody waits any more");
	fd = connect_session();
	cancel(fd);
	cr_expect_eq(replied(fd), -EPROTO, "there is nothing to cancel");
	close(fd);
	/* A message that is out of place ends it, too. */
	fd = ask_snapshot(0, 0);
	ask(fd, SESSION_SNAPSHOT, &(struct session_range){.length = 4096},
	    sizeof(struct session_range));
	cr_expect_eq(replied(fd), -EPROTO);
	cr_expect_eq(fake_pager_task(pager, id)->snapshot, 0);
	close(fd);
	detach_self();
}

/* The client goes while its snapshot is being made, before and after its connection does. */
Test(requests, snapshot_of_who_has_gone)
{
	pager_task_id id = attach_self();
	int fd = ask_snapshot(0, 0);

	fake_pager_snapshot_begins(pager, id);
	pump();
	cr_expect_eq(replied(fd), 0);
	fake_pager_snapshot_ends(pager, id, ESRCH);
	detach_self();
	cr_expect_eq(ended(fd).status, -ESRCH);
	attach_self();
	fd = ask_snapshot(0, 0);
	detach_self();
	close(fd);
}
