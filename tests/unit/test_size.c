#include <criterion/criterion.h>
#include <errno.h>

#include "base/size.h"

Test(size, parse)
{
	static const struct {
		const char *text;
		int r;
		uint64_t size;
	} cases[] = {
	    {"0", 0, 0},
	    {"4096", 0, 4096},
	    {"64K", 0, 64 << 10},
	    {"64k", 0, 64 << 10},
	    {"256M", 0, 256 << 20},
	    {"256MiB", 0, 256 << 20},
	    {"256MB", 0, 256 << 20},
	    {"1.5G", 0, UINT64_C(3) << 29},
	    {"2T", 0, UINT64_C(2) << 40},
	    {"8191P", 0, UINT64_C(8191) << 50},
	    {"8192P", -ERANGE, 0},
	    {"9999999999999999999999", -ERANGE, 0},
	    {"", -EINVAL, 0},
	    {"G", -EINVAL, 0},
	    {"-1", -EINVAL, 0},
	    {"+1", -EINVAL, 0},
	    {" 1", -EINVAL, 0},
	    {"1 G", -EINVAL, 0},
	    {"1GG", -EINVAL, 0},
	    {"1X", -EINVAL, 0},
	    {"0x10", -EINVAL, 0},
	    {"1e3", -EINVAL, 0},
	    {"inf", -EINVAL, 0},
	    {"nan", -EINVAL, 0},
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		uint64_t size = 0;

		cr_expect_eq(size_parse(cases[i].text, &size), cases[i].r, "%s", cases[i].text);
		cr_expect_eq(size, cases[i].size, "%s", cases[i].text);
	}
}

Test(size, format)
{
	char text[24];

	cr_expect_str_eq(size_format(0, text), "0 B");
	cr_expect_str_eq(size_format(999, text), "999 B");
	cr_expect_str_eq(size_format(1024, text), "1 KiB");
	cr_expect_str_eq(size_format(256 << 20, text), "256 MiB");
	cr_expect_str_eq(size_format(UINT64_C(3) << 29, text), "1.5 GiB");
}
