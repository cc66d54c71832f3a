#include "postgres.h"
#include "fmgr.h"
#include <stdlib.h>
PG_MODULE_MAGIC;
static void **kept; static int n;
PG_FUNCTION_INFO_V1(hx_lost);
Datum hx_lost(PG_FUNCTION_ARGS){ volatile char *p = malloc(100); p[0]=1; PG_RETURN_VOID(); }
PG_FUNCTION_INFO_V1(hx_keep);
Datum hx_keep(PG_FUNCTION_ARGS){ if(!kept) kept=calloc(100000,sizeof(void*)); kept[n++] = malloc(100); PG_RETURN_VOID(); }
