#include "policy/refault.h"

/* With so much more memory it would not have left. */
bool refault_activates(uint32_t evictions, uint32_t shadow, uint64_t resident)
{
	return evictions - shadow <= resident;
}
