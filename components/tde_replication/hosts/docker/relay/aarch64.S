	.globl _start
_start:	ldr	x19, [sp, #16]		// argv[1], the socket's path
	sub	sp, sp, #0x2, lsl #12
	sub	sp, sp, #0x100
	mov	x0, #1			// socket(AF_UNIX, SOCK_STREAM, 0)
	mov	x1, #1
	mov	x2, #0
	mov	x8, #198
	svc	#0
	mov	x20, x0
	mov	w0, #1			// struct sockaddr_un at sp
	strh	w0, [sp]
	add	x1, sp, #2
	mov	x2, #107
1:	ldrb	w0, [x19], #1
	strb	w0, [x1], #1
	cbz	w0, 2f
	subs	x2, x2, #1
	b.ne	1b
2:	mov	x0, x20			// connect
	mov	x1, sp
	mov	x2, #110
	mov	x8, #203
	svc	#0
	mov	x3, x0
	mov	x0, #1
	tbnz	x3, #63, exit
	mov	x8, #172		// getpid: after the parent's end getppid would be the server's init
	svc	#0
	mov	x25, x0
	mov	x0, #17			// clone(SIGCHLD) is fork
	mov	x1, #0
	mov	x2, #0
	mov	x3, #0
	mov	x4, #0
	mov	x8, #220
	svc	#0
	mov	x19, x0
	cbz	x0, 3f
	mov	x21, #0			// the parent: standard input to the socket
	mov	x22, x20
	b	copy
3:	mov	x21, x20		// the child: the socket to standard output
	mov	x22, #1
copy:	mov	x0, x21			// read
	mov	x1, sp
	mov	x2, #8192
	mov	x8, #63
	svc	#0
	cmp	x0, #0
	b.le	ended
	mov	x23, sp
	mov	x24, x0
4:	mov	x0, x22			// write, until all is
	mov	x1, x23
	mov	x2, x24
	mov	x8, #64
	svc	#0
	cmp	x0, #0
	b.le	ended
	add	x23, x23, x0
	subs	x24, x24, x0
	b.ne	4b
	b	copy
ended:	mov	x0, x20			// shutdown(socket, SHUT_RDWR): the other one ends too
	mov	x1, #2
	mov	x8, #210
	svc	#0
	cbnz	x19, 5f
	mov	x0, x25			// kill(parent, SIGTERM): it waits for input
	mov	x1, #15
	mov	x8, #129
	svc	#0
5:	mov	x0, #0
exit:	mov	x8, #93			// exit
	svc	#0
