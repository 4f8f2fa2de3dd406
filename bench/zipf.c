#include "zipf.h"

#include <math.h>

void zipf_init(struct zipf *zipf, uint64_t n, double theta)
{
	double zeta = 0;

	for (uint64_t i = 1; i <= n; i++)
		zeta += 1 / pow((double)i, theta);
	zipf->n = n;
	zipf->theta = theta;
	zipf->zeta = zeta;
	zipf->alpha = 1 / (1 - theta);
	zipf->eta = (1 - pow(2 / (double)n, 1 - theta)) / (1 - (1 + pow(0.5, theta)) / zeta);
}

uint64_t zipf_rank(const struct zipf *zipf, uint64_t random)
{
	double u = (double)(random >> 11) * 0x1p-53;
	double uz = u * zipf->zeta;
	uint64_t rank;

	if (uz < 1)
		return 0;
	if (uz < 1 + pow(0.5, zipf->theta))
		return 1;
	rank = (uint64_t)((double)zipf->n * pow(zipf->eta * u - zipf->eta + 1, zipf->alpha));
	return rank < zipf->n ? rank : zipf->n - 1;
}

uint64_t zipf_draw(const struct zipf *zipf, uint64_t random, uint64_t pages)
{
	const uint64_t prime = 2654435761u;
	uint64_t rank = zipf_rank(zipf, random);

	if (rank >= pages)
		rank = pages - 1;
	return (uint64_t)(((unsigned __int128)rank * prime) % pages);
}
