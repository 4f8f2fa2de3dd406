#include "policy/refault.h"

uint32_t refault_distance(uint32_t evictions, uint32_t shadow)
{
	return evictions - shadow;
}

bool refault_activates(uint64_t distance, uint64_t pages)
{
	return distance <= pages;
}
