/* A static program: no shim can be preloaded into it. */
#include <stdio.h>

int main(void)
{
	puts("the static program ran");
	return 0;
}
