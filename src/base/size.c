#include "base/size.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int size_parse(const char *text, uint64_t *ret)
{
	static const char suffixes[] = "BKMGTP";
	char *end;
	double value;
	unsigned shift = 0;

	if (*text < '0' || *text > '9' || strpbrk(text, "xXeE"))
		return -EINVAL;
	errno = 0;
	value = strtod(text, &end);
	if (*end) {
		const char upper[] = {(char)(*end & ~0x20), 0};
		const char *suffix = strstr(suffixes, upper);

		if (!suffix)
			return -EINVAL;
		shift = 10 * (unsigned)(suffix - suffixes);
		end++;
		if (!strcasecmp(end, "iB") && shift)
			end += 2;
		else if (shift && (*end == 'B' || *end == 'b'))
			end++;
		if (*end)
			return -EINVAL;
	}
	value *= (double)(1ull << shift);
	if (errno || value >= 9223372036854775808.0)
		return -ERANGE;
	if (value != floor(value))
		value = floor(value);
	*ret = (uint64_t)value;
	return 0;
}

const char *size_format(uint64_t bytes, char buffer[static 24])
{
	static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
	double value = (double)bytes;
	unsigned unit = 0;

	while (value >= 999.5 && unit + 1 < sizeof(units) / sizeof(*units)) {
		value /= 1024;
		unit++;
	}
	if (unit == 0 || value >= 99.95 || value == floor(value))
		snprintf(buffer, 24, "%.0f %s", value, units[unit]);
	else
		snprintf(buffer, 24, "%.1f %s", value, units[unit]);
	return buffer;
}
