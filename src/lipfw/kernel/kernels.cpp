// The CPU kernels behind a plain C interface.
#include "kernels.inc"

extern "C" int lipfw_abi(void) { return 1; }
