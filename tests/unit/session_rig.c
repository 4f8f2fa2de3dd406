#include "session_rig.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "failure.h"
#include "listen.h"
#include "log.h"
#include "pager/pager.h"

struct pager *pager;
struct registry registry;
struct notices notices;
struct sessions sessions;
uv_loop_t loop;
char path[64];
static struct monitors monitors;
static struct snapshots snapshots;
static struct traces traces;
struct clients clients;

void session_setup(void)
{
	struct pager_config config = {0};
	struct failure failure;

	log_init(true);
	snprintf(path, sizeof(path), "/tmp/test-sessions-%d", getpid());
	uv_loop_init(&loop);
	cr_assert_eq(pager_new(&config, &pager, NULL), 0);
	registry_init(&registry, pager);
	monitors_init(&monitors, &loop, &registry);
	snapshots_init(&snapshots, pager);
	notices = (struct notices){pager, &registry, &monitors, &snapshots, &traces};
	clients = (struct clients){&loop, pager, &registry, &notices, &monitors};
	sessions = (struct sessions){.loop = &loop, .clients = &clients, .give_up_s = 10};
	cr_assert_eq(
	    sessions_init(&sessions, listen_bind(path, SOCK_SEQPACKET, &failure), &failure), 0);
}

void session_teardown(void)
{
	cr_expect(TAILQ_EMPTY(&registry.groups));
	sessions_close(&sessions);
	uv_run(&loop, UV_RUN_DEFAULT);
	cr_expect_eq(uv_loop_close(&loop), 0);
	pager_free(pager);
	unlink(path);
}
