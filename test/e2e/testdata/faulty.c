// A PKCS#11 module that passes every call on to another one, named by FAULTY_TARGET,
// until it is told to misbehave, as vendors' modules do. It is told by files in the
// folder FAULTY_CONTROL, each of which holds the label of a token, or * for all:
//
//	hang   calls of that token never return
//	crash  the next call of that token takes the process with it; the file is removed
//
// Where FAULTY_DELAY is set, C_Encrypt and C_Decrypt take so many microseconds more, as
// those of an HSM in a network do.
//
//	gcc -shared -fPIC -O0 -o faulty.so faulty.c -ldl
#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// PKCS#11 v2.40: the function list is a version and pointers in the order of section 5.
typedef unsigned long ulong_t;
typedef struct { unsigned char major, minor; void *fn[68]; } function_list;
typedef struct { ulong_t slot, state, flags, error; } session_info;
typedef struct { unsigned char label[32], rest[512]; } token_info;
enum { GET_TOKEN_INFO = 6, GET_SESSION_INFO = 15, FIND_OBJECTS_INIT = 26, ENCRYPT_INIT = 29, ENCRYPT, DECRYPT_INIT = 33, DECRYPT, GENERATE_RANDOM = 64 };

static function_list *target, own;
static useconds_t delay;

// meant says whether a label, padded with blanks, is that of the session's token.
static int meant(const char *label, ulong_t session) {
	session_info s;
	token_info t;
	if (!strcmp(label, "*")) return 1;
	if (((ulong_t(*)(ulong_t, session_info *))target->fn[GET_SESSION_INFO])(session, &s)) return 0;
	if (((ulong_t(*)(ulong_t, token_info *))target->fn[GET_TOKEN_INFO])(s.slot, &t)) return 0;
	size_t n = strlen(label);
	return n <= 32 && !memcmp(t.label, label, n) && (n == 32 || t.label[n] == ' ');
}

// told says whether a file of this name is there and means the session's token.
static int told(const char *what, ulong_t session, char *path) {
	char label[64] = "";
	snprintf(path, PATH_MAX, "%s/%s", getenv("FAULTY_CONTROL"), what);
	FILE *f = fopen(path, "r");
	if (!f) return 0;
	int read = fscanf(f, "%63s", label);
	fclose(f);
	return read == 1 && meant(label, session);
}

static void obey(ulong_t session) {
	char path[PATH_MAX];
	while (told("hang", session, path))
		for (;;) pause();
	if (told("crash", session, path)) {
		unlink(path);
		*(volatile int *)NULL = 1;
	}
}

static ulong_t encrypt_init(ulong_t session, void *mechanism, ulong_t key) {
	obey(session);
	return ((ulong_t(*)(ulong_t, void *, ulong_t))target->fn[ENCRYPT_INIT])(session, mechanism, key);
}

static ulong_t decrypt_init(ulong_t session, void *mechanism, ulong_t key) {
	obey(session);
	return ((ulong_t(*)(ulong_t, void *, ulong_t))target->fn[DECRYPT_INIT])(session, mechanism, key);
}

typedef ulong_t (*crypt_t)(ulong_t session, unsigned char *in, ulong_t in_size, unsigned char *out, ulong_t *out_size);

static ulong_t slow_encrypt(ulong_t session, unsigned char *in, ulong_t in_size, unsigned char *out, ulong_t *out_size) {
	usleep(delay);
	return ((crypt_t)target->fn[ENCRYPT])(session, in, in_size, out, out_size);
}

static ulong_t slow_decrypt(ulong_t session, unsigned char *in, ulong_t in_size, unsigned char *out, ulong_t *out_size) {
	usleep(delay);
	return ((crypt_t)target->fn[DECRYPT])(session, in, in_size, out, out_size);
}

static ulong_t find_objects_init(ulong_t session, void *template, ulong_t count) {
	obey(session);
	return ((ulong_t(*)(ulong_t, void *, ulong_t))target->fn[FIND_OBJECTS_INIT])(session, template, count);
}

static ulong_t generate_random(ulong_t session, unsigned char *out, ulong_t size) {
	obey(session);
	return ((ulong_t(*)(ulong_t, unsigned char *, ulong_t))target->fn[GENERATE_RANDOM])(session, out, size);
}

ulong_t C_GetFunctionList(function_list **list) {
	if (!target) {
		void *lib = dlopen(getenv("FAULTY_TARGET"), RTLD_NOW | RTLD_LOCAL);
		ulong_t (*get)(function_list **) = lib ? (ulong_t(*)(function_list **))dlsym(lib, "C_GetFunctionList") : NULL;
		if (!get || get(&target)) return 5; // CKR_GENERAL_ERROR
		own = *target;
		own.fn[ENCRYPT_INIT] = (void *)encrypt_init;
		own.fn[DECRYPT_INIT] = (void *)decrypt_init;
		own.fn[FIND_OBJECTS_INIT] = (void *)find_objects_init;
		own.fn[GENERATE_RANDOM] = (void *)generate_random;
		if (getenv("FAULTY_DELAY") && (delay = atoi(getenv("FAULTY_DELAY")))) {
			own.fn[ENCRYPT] = (void *)slow_encrypt;
			own.fn[DECRYPT] = (void *)slow_decrypt;
		}
	}
	*list = &own;
	return 0;
}
