#include <criterion/criterion.h>
#include <errno.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fake_pager.h"
#include "notices.h"
#include "monitor.h"
#include "registry.h"
#include "snapshots.h"
#include "traces.h"
#include "sys/pidfd.h"

#define LONG_NAME "01234567890123456789012345678901234567890123456789012345678901234"
#define LIMIT	  (64u << 20)

static struct pager *pager;
static struct registry registry;
static struct monitors monitors;
static struct snapshots snapshots;
static struct traces traces;
static struct notices notices;
static unsigned n_ended;
static const char owner = 'o', other = 'p';

static void on_ended(struct group *group, void *context)
{
	cr_expect_eq(context, &n_ended);
	cr_expect_str_eq(group->name, "g");
	n_ended++;
}

static void setup(void)
{
	struct pager_config config = {0};

	cr_assert_eq(pager_new(&config, &pager, NULL), 0);
	registry_init(&registry, pager);
	registry.group_ended = on_ended;
	registry.context = &n_ended;
	monitors_init(&monitors, NULL, &registry);
	notices = (struct notices){pager, &registry, &monitors, &snapshots, &traces};
}

static void teardown(void)
{
	registry_done(&registry);
	pager_free(pager);
}

TestSuite(registry, .init = setup, .fini = teardown);

static struct group *make(void)
{
	struct group *group = NULL;

	cr_assert_eq(registry_create(&registry, "g", 1000, &owner, LIMIT, &group), 0);
	return group;
}

/* A task of the fake pager that the registry knows, as the sessions make it. */
static struct task *attach(struct group *group, pid_t pid)
{
	struct pager_attach what = {pid, -1, -1, -1, -1, -1, -1, -1, 0, 0};
	struct pager_welcome welcome;
	pager_task_id id;

	cr_assert_eq(pager_attach(pager, group->pager, &what, &welcome, &id), 0);
	return registry_task_add(&registry, group, id, 0, pid);
}

static pid_t sleeper(void)
{
	pid_t pid = fork();

	if (pid == 0)
		for (;;)
			pause();
	return pid;
}

Test(registry, names)
{
	static const char *const bad[] = {"", "a b", "a/b", "a\n", "a\xc3\xa4", LONG_NAME};
	struct group *group = make(), *unused;

	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		cr_expect_eq(registry_create(&registry, bad[i], 0, &owner, LIMIT, &unused), -EINVAL,
			     "%s", bad[i]);
	cr_expect_eq(registry_create(&registry, "g", 0, &owner, LIMIT, &unused), -EEXIST);
	cr_expect_eq(registry_create(&registry, "h", 0, &owner, 1, &unused), -ERANGE);
	cr_expect_eq(registry_group(&registry, "g"), group);
	cr_expect_eq(registry_group_by_key(&registry, group->key), group);
	cr_expect_neq(group->key, 0);
	cr_expect_null(registry_group_by_key(&registry, 0));
	cr_expect(registry_uid_has_group(&registry, 1000));
	cr_expect_not(registry_uid_has_group(&registry, 1001));
	cr_expect_eq(fake_pager_n_groups(), 1);
	registry_release(&registry, group);
	cr_expect_eq(fake_pager_n_groups(), 0);
}

Test(registry, released_without_a_task_ends_at_once)
{
	registry_release(&registry, make());
	cr_expect_eq(n_ended, 1);
	cr_expect_null(registry_group(&registry, "g"));
}

Test(registry, released_ends_with_its_last_task)
{
	struct group *group = make();
	struct task *task = attach(group, 1);

	registry_release(&registry, group);
	cr_expect_eq(n_ended, 0);
	pager_detach(pager, task->id);
	notices_drain(&notices);
	cr_expect_eq(n_ended, 1);
}

Test(registry, owned_outlives_its_last_task)
{
	struct group *group = make();
	struct task *task = attach(group, 1);

	pager_detach(pager, task->id);
	notices_drain(&notices);
	cr_expect_eq(n_ended, 0);
	cr_expect_eq(registry_owner_gone(&registry, &other), 0);
	cr_expect_eq(n_ended, 0);
	cr_expect_eq(registry_owner_gone(&registry, &owner), 1);
	cr_expect_eq(n_ended, 1);
}

Test(registry, owner_gone_kills_members)
{
	struct group *group = make();
	pid_t pid = sleeper(), late = sleeper();
	struct member member = {.pid = pid, .pidfd = pidfd_open_pid(pid)};
	struct member latecomer = {.pid = late, .pidfd = pidfd_open_pid(late)};
	int status;

	registry_member_add(&registry, group, &member);
	cr_expect_eq(registry_member(&registry, pid), &member);
	cr_expect_eq(registry_owner_gone(&registry, &owner), 1);
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	cr_expect_eq(n_ended, 0); /* until the member is seen to be gone */
	registry_member_add(&registry, group, &latecomer);
	cr_assert_eq(waitpid(late, &status, 0), late);
	cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	registry_member_gone(&registry, &member);
	cr_expect_eq(n_ended, 0);
	registry_member_gone(&registry, &latecomer);
	cr_expect_eq(n_ended, 1);
	close(member.pidfd);
	close(latecomer.pidfd);
}

Test(registry, a_member_without_a_task_keeps_the_group)
{
	struct group *group = make();
	struct task *task = attach(group, 7);
	struct member member = {.pid = 7, .pidfd = -1, .task = task->id};

	registry_member_add(&registry, group, &member);
	registry_release(&registry, group);
	pager_detach(pager, task->id); /* exec */
	notices_drain(&notices);
	cr_expect_eq(member.task, 0);
	cr_expect_eq(n_ended, 0);
	registry_member_gone(&registry, &member);
	cr_expect_eq(n_ended, 1);
}

Test(registry, held_groups_stay)
{
	struct group *group = make();

	registry_hold(group);
	registry_release(&registry, group);
	cr_expect_eq(n_ended, 0);
	registry_unhold(&registry, group);
	cr_expect_eq(n_ended, 1);
}

Test(registry, forks_are_learned_from_notices)
{
	struct group *group = make();
	struct task *parent = attach(group, 1), *child;
	pager_task_id id = fake_pager_fork(pager, parent->id, 77);

	notices_drain(&notices);
	child = registry_task(&registry, id);
	cr_assert(child);
	cr_expect_eq(child->group, group);
	cr_expect_eq(child->parent, parent->id);
	cr_expect_eq(child->pid, 0);
	cr_expect_null(registry_task_by_pid(&registry, 0));
	cr_expect_eq(registry_task_add(&registry, group, id, 0, 55), child);
	cr_expect_eq(registry_task_by_pid(&registry, 55), child);
	cr_expect_eq(child->parent, parent->id);
	registry_release(&registry, group);
	pager_detach(pager, parent->id);
	notices_drain(&notices);
	cr_expect_eq(n_ended, 0);
	pager_detach(pager, id);
	notices_drain(&notices);
	cr_expect_eq(n_ended, 1);
}
