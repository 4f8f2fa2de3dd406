/* The configuration file's text. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "conf.h"
#include "failure.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct failure failure = {""};
	static struct conf conf;

	if (conf_parse((const char *)data, size, &conf, &failure) == 0) {
		if (conf.pager.n_swaps > CONF_SWAPS || !conf.socket || conf.pager.workers < 1)
			abort();
		conf_done(&conf);
	} else if (!*failure.text || strlen(failure.text) >= FAILURE_SIZE) {
		abort();
	}
	return 0;
}
