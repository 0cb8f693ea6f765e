	.intel_syntax noprefix
	.globl _start
_start:	mov	rbp, [rsp + 16]		# argv[1], the socket's path
	sub	rsp, 0x2100
	mov	eax, 41			# socket(AF_UNIX, SOCK_STREAM, 0)
	mov	edi, 1
	mov	esi, 1
	xor	edx, edx
	syscall
	mov	ebx, eax
	mov	word ptr [rsp], 1	# struct sockaddr_un at rsp
	lea	rdi, [rsp + 2]
	mov	rsi, rbp
	mov	ecx, 107
1:	lodsb
	stosb
	test	al, al
	jz	2f
	loop	1b
2:	mov	eax, 42			# connect
	mov	edi, ebx
	mov	rsi, rsp
	mov	edx, 110
	syscall
	test	eax, eax
	mov	edi, 1
	js	exit
	mov	eax, 39			# getpid: after the parent's end getppid would be the server's init
	syscall
	mov	[rsp + 0x2080], eax
	mov	eax, 57			# fork
	syscall
	mov	ebp, eax
	test	eax, eax
	jz	3f
	xor	r12d, r12d		# the parent: standard input to the socket
	mov	r13d, ebx
	jmp	copy
3:	mov	r12d, ebx		# the child: the socket to standard output
	mov	r13d, 1
copy:	xor	eax, eax		# read
	mov	edi, r12d
	mov	rsi, rsp
	mov	edx, 8192
	syscall
	test	rax, rax
	jle	ended
	mov	r14, rsp
	mov	r15, rax
4:	mov	eax, 1			# write, until all is
	mov	edi, r13d
	mov	rsi, r14
	mov	rdx, r15
	syscall
	test	rax, rax
	jle	ended
	add	r14, rax
	sub	r15, rax
	jnz	4b
	jmp	copy
ended:	mov	eax, 48			# shutdown(socket, SHUT_RDWR): the other one ends too
	mov	edi, ebx
	mov	esi, 2
	syscall
	test	ebp, ebp
	jnz	5f
	mov	eax, 62			# kill(parent, SIGTERM): it waits for input
	mov	edi, [rsp + 0x2080]
	mov	esi, 15
	syscall
5:	xor	edi, edi
exit:	mov	eax, 60			# exit
	syscall
