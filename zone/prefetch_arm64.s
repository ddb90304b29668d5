#include "textflag.h"

// func prefetch(from *byte, octets int)
TEXT ·prefetch(SB), NOSPLIT, $0-16
	MOVD from+0(FP), R0
	MOVD octets+8(FP), R1
	ADD  R0, R1
	BIC  $63, R0

line:
	PRFM (R0), PLDL1KEEP
	ADD  $64, R0
	CMP  R1, R0
	BLT  line
	RET
