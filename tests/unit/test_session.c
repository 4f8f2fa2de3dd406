/* proto/session: messages that are whole, and messages that are not. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proto/session.h"

static int pair[2];
static struct session_hello hello;

static void begin(void)
{
	cr_assert_eq(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair), 0);
	session_header_init(&hello.header, SESSION_HELLO);
	hello.sentinel = 0x1234000;
}

TestSuite(session, .init = begin);

static unsigned open_descriptors(void)
{
	DIR *folder = opendir("/proc/self/fd");
	unsigned n = 0;

	while (readdir(folder))
		n++;
	closedir(folder);
	return n;
}

static int receive(unsigned max_fds, int *fds, unsigned *ret_n)
{
	struct session_hello got;

	return session_receive(pair[1], SESSION_HELLO, &got, sizeof(got), fds, max_fds, ret_n, NULL);
}

Test(session, whole)
{
	int fds[SESSION_FDS], sent[SESSION_FDS], pid = 0, on = 1;
	struct session_hello got = {0};
	unsigned n = 0;

	for (unsigned i = 0; i < SESSION_FDS; i++)
		sent[i] = pair[0];
	cr_assert_eq(setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)), 0);
	cr_assert_eq(session_send(pair[0], &hello, sizeof(hello), sent, SESSION_FDS), 0);
	cr_assert_eq(session_receive(pair[1], SESSION_HELLO, &got, sizeof(got), fds, SESSION_FDS, &n,
				     &pid), 0);
	cr_expect_eq(got.sentinel, hello.sentinel);
	cr_expect_eq(n, SESSION_FDS);
	cr_expect_eq(pid, getpid());
	for (unsigned i = 0; i < n; i++)
		cr_expect(fcntl(fds[i], F_GETFD) & FD_CLOEXEC);
}

static void refused(const void *message, unsigned size, unsigned n_fds, unsigned max_fds)
{
	int fds[SESSION_FDS] = {0}, sent[SESSION_FDS];
	unsigned before = open_descriptors(), n = 99;

	for (unsigned i = 0; i < SESSION_FDS; i++)
		sent[i] = pair[0];
	cr_assert_eq(session_send(pair[0], message, size, sent, n_fds), 0);
	cr_expect_eq(receive(max_fds, fds, &n), -EPROTO);
	cr_expect_eq(open_descriptors(), before, "descriptors stay open");
	cr_expect_eq(n, 99, "untouched on failure");
	/* The socket goes on. */
	cr_expect_eq(receive(max_fds, fds, &n), -EAGAIN);
}

Test(session, too_long)
{
	char message[sizeof(hello) + 1] = {0};

	memcpy(message, &hello, sizeof(hello));
	refused(message, sizeof(message), 3, SESSION_FDS);
}

Test(session, much_too_long)
{
	static char message[65536];

	memcpy(message, &hello, sizeof(hello));
	refused(message, sizeof(message), SESSION_FDS, SESSION_FDS);
}

Test(session, too_short)
{
	refused(&hello, sizeof(hello) - 1, 2, SESSION_FDS);
	refused(&hello, 1, 1, SESSION_FDS);
	refused(&hello, sizeof(hello.header), 0, SESSION_FDS);
}

Test(session, wrong_kind)
{
	hello.header.type = SESSION_WELCOME;
	refused(&hello, sizeof(hello), 4, SESSION_FDS);
	hello.header.type = SESSION_HELLO;
	hello.header.version++;
	refused(&hello, sizeof(hello), 4, SESSION_FDS);
	hello.header.version--;
	hello.header.magic ^= 1;
	refused(&hello, sizeof(hello), 0, SESSION_FDS);
}

Test(session, too_many_descriptors)
{
	refused(&hello, sizeof(hello), 3, 2);
	refused(&hello, sizeof(hello), 1, 0);
}

/* More than there is room for: the kernel cuts them off and says so. */
Test(session, far_too_many_descriptors)
{
	union {
		struct cmsghdr align;
		char space[CMSG_SPACE(64 * sizeof(int))];
	} control = {0};
	struct iovec iov = {&hello, sizeof(hello)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control,
			     .msg_controllen = sizeof(control)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	unsigned before = open_descriptors(), n;
	int fds[SESSION_FDS];

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(64 * sizeof(int));
	for (unsigned i = 0; i < 64; i++)
		((int *)(void *)CMSG_DATA(c))[i] = pair[0];
	cr_assert(sendmsg(pair[0], &msg, 0) == sizeof(hello));
	cr_expect_eq(receive(SESSION_FDS, fds, &n), -EPROTO);
	cr_expect_eq(open_descriptors(), before, "descriptors stay open");
}

Test(session, end)
{
	int fds[SESSION_FDS];
	unsigned n;

	cr_expect_eq(receive(SESSION_FDS, fds, &n), -EAGAIN);
	close(pair[0]);
	cr_expect_eq(receive(SESSION_FDS, fds, &n), -ECONNRESET);
	cr_expect_eq(session_send(pair[1], &hello, sizeof(hello), NULL, 0), -EPIPE);
}
