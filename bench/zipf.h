/* Numbers of the zipf distribution, as Gray et al. draw them (SIGMOD 1994). */
#pragma once

#include <stdint.h>

struct zipf {
	uint64_t n;
	double theta, alpha, zeta, eta;
};

/* Ranks below n, with a skew of 0 < theta < 1. */
void zipf_init(struct zipf *zipf, uint64_t n, double theta);

/* The rank that a random number means: 0 is the hottest. */
uint64_t zipf_rank(const struct zipf *zipf, uint64_t random);

/* The same, scattered over so many pages: hot ones are no neighbours. */
uint64_t zipf_draw(const struct zipf *zipf, uint64_t random, uint64_t pages);
