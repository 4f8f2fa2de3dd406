/* Groups, tasks and tiers as the JSON of io.upager.Pager. New references; NULL = out of memory. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

struct group;
struct pager;
struct registry;

json_t *view_group(const struct group *group);
json_t *view_tasks(struct registry *registry, const struct group *group);
json_t *view_tiers(const struct pager *pager);

/* An array of the groups that uid may see; only != NULL = at most that one. */
json_t *view_groups(const struct registry *registry, uid_t uid, const struct group *only);
bool view_permits(const struct group *group, uid_t uid);
