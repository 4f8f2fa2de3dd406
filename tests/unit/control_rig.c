#include "control_rig.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fake_pager.h"
#include "log.h"
#include "sys/pidfd.h"

struct pager *pager;
struct registry registry;
struct monitors monitors;
struct snapshots snapshots;
struct traces traces;
struct notices notices;
static struct control control;
uv_loop_t loop;

struct peer user, stranger, root;

static void on_send(struct varlink *link, const char *message, size_t size)
{
	struct peer *peer = (struct peer *)((char *)link - offsetof(struct peer, link));

	json_decref(peer->last);
	peer->last = json_loadb(message, size - 1, 0, NULL);
	cr_assert(peer->last);
	peer->n++;
}

void peer_init(struct peer *peer, uid_t uid)
{
	peer->caller = (struct caller){&control, uid, 4711, pidfd_open_pid(getpid())};
	varlink_init(&peer->link, &control_service, on_send, &peer->caller);
}

void peer_done(struct peer *peer)
{
	varlink_done(&peer->link);
	control_caller_gone(&peer->caller);
	close(peer->caller.pidfd);
	json_decref(peer->last);
	peer->last = NULL;
}

static void on_group_ended(struct group *group, void *context)
{
	(void)context;
	monitors_group_ended(&monitors, group);
	traces_group_ended(&traces, group);
}

void control_setup(void)
{
	struct pager_config config = {.swaps = &(struct pager_swap){.path = "/tmp", .size = 4096},
				      .n_swaps = 1};

	log_init(true);
	uv_loop_init(&loop);
	cr_assert_eq(pager_new(&config, &pager, NULL), 0);
	registry_init(&registry, pager);
	registry.group_ended = on_group_ended;
	monitors_init(&monitors, &loop, &registry);
	snapshots_init(&snapshots, pager);
	traces_init(&traces, pager);
	notices = (struct notices){pager, &registry, &monitors, &snapshots, &traces};
	control = (struct control){pager, &registry, &monitors, &snapshots, &traces};
	peer_init(&user, 1000);
	peer_init(&stranger, 1001);
	peer_init(&root, 0);
}

void control_teardown(void)
{
	peer_done(&user);
	peer_done(&stranger);
	peer_done(&root);
	uv_run(&loop, UV_RUN_DEFAULT);
	cr_expect_eq(uv_loop_close(&loop), 0);
	registry_done(&registry);
	cr_expect_eq(fake_pager_n_groups(), 0);
	pager_free(pager);
}

json_t *call(struct peer *peer, const char *method, const char *parameters, char *ret_error)
{
	char message[512];
	const char *error;

	snprintf(message, sizeof(message), "{\"method\":\"io.upager.Pager.%s\",\"parameters\":%s}",
		 method, parameters);
	peer->n = 0;
	cr_assert_eq(varlink_feed(&peer->link, message, strlen(message) + 1), 0);
	cr_assert_eq(peer->n, 1, "%s: %u replies", message, peer->n);
	error = json_string_value(json_object_get(peer->last, "error"));
	strcpy(ret_error, error ? strrchr(error, '.') + 1 : "");
	return json_object_get(peer->last, "parameters");
}

void expect_error(struct peer *peer, const char *method, const char *parameters,
			 const char *expected)
{
	char error[64];

	call(peer, method, parameters, error);
	cr_expect_str_eq(error, expected, "%s(%s): %s", method, parameters, error);
}

void attach(const char *name, pid_t pid)
{
	struct group *group = registry_group(&registry, name);
	struct pager_attach what = {pid, -1, -1, -1, -1, -1, -1, -1, 0, 0};
	struct pager_welcome welcome;
	pager_task_id id;

	cr_assert_eq(pager_attach(pager, group->pager, &what, &welcome, &id), 0);
	registry_task_add(&registry, group, id, 0, pid);
}

void detach(pid_t pid)
{
	pager_detach(pager, registry_task_by_pid(&registry, pid)->id);
	notices_drain(&notices);
}
