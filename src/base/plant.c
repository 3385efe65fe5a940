#include "base/plant.h"

#ifdef VV_PLANTABLE
#include <stdlib.h>

int vv_plant_chosen(void)
{
    /* Read once, before there are threads; all that ask later see the same number. */
    static int chosen = -1;
    if (chosen < 0) {
        const char *text = getenv("VARVE_PLANT");
        chosen = text ? atoi(text) : 0;
    }
    return chosen;
}
#endif
