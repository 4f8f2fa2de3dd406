/* The fake pager has no images. */
#include "fake_pager.h"

#include <errno.h>

int pager_image_open(struct pager *pager, int file, bool shared, struct image **ret, int *ret_memory)
{
	(void)pager, (void)file, (void)shared, (void)ret, (void)ret_memory;
	return -EOPNOTSUPP;
}

void pager_image_close(struct image *image)
{
	(void)image;
}

void pager_image_stat(const struct pager *pager, struct pager_image_stat *ret)
{
	(void)pager;
	*ret = (struct pager_image_stat){0};
}

int pager_map(struct pager *pager, pager_task_id id, const struct pager_range *range,
	      struct image *image, uint64_t unit, pager_done *done, void *context)
{
	(void)pager, (void)id, (void)range, (void)image, (void)unit, (void)done, (void)context;
	return -EOPNOTSUPP;
}

int pager_sync(struct pager *pager, pager_task_id id, const struct pager_range *range,
	       pager_done *done, void *context)
{
	(void)pager, (void)id, (void)range;
	done(context, 0);
	return 0;
}

int pager_advise(struct pager *pager, pager_task_id id, const struct pager_range *range,
		 enum pager_advice advice, pager_done *done, void *context)
{
	(void)pager, (void)id, (void)range, (void)advice;
	done(context, 0);
	return 0;
}
