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

uint64_t zipf_draw(const struct zipf *zipf, uint64_t random, uint64_t pages)
{
	const uint64_t prime = 2654435761u;
	double u = (double)(random >> 11) * 0x1p-53;
	double uz = u * zipf->zeta;
	uint64_t rank;

	if (uz < 1)
		rank = 0;
	else if (uz < 1 + pow(0.5, zipf->theta))
		rank = 1;
	else
		rank =
		    (uint64_t)((double)zipf->n * pow(zipf->eta * u - zipf->eta + 1, zipf->alpha));
	if (rank >= pages)
		rank = pages - 1;
	return (uint64_t)(((unsigned __int128)rank * prime) % pages);
}
