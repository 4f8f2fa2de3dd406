#include "policy/victim.h"

uint64_t victim_weight(uint64_t resident_pages, uint64_t refaults)
{
	return resident_pages * 64 / (64 + refaults);
}
