// What a token does when nobody is in between: so many threads, each with a session of
// its own, wrap or unwrap what has the size of a bucket key in a loop. To wrap is to
// encrypt and to decrypt it again, as the KMS records nothing that it has not opened.
//
//	bareloop MODULE LABEL PIN KEY-LABEL wrap|unwrap SESSIONS SECONDS
//
// It prints operations a second. The key is AES, in the token, and is found by label.
//
//	gcc -O2 -o bareloop bareloop.c -ldl -lpthread
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

// PKCS#11 v2.40: the function list is a version and pointers in the order of section 5.
typedef unsigned long ulong_t;
typedef struct { unsigned char major, minor; void *fn[68]; } function_list;
typedef struct { unsigned char *iv; ulong_t iv_len, iv_bits; unsigned char *aad; ulong_t aad_len, tag_bits; } gcm_params;
typedef struct { ulong_t kind; void *value; ulong_t len; } pair; // a CK_MECHANISM, and a CK_ATTRIBUTE
enum {
	INITIALIZE = 0, GET_SLOT_LIST = 4, GET_TOKEN_INFO = 6, OPEN_SESSION = 12, LOGIN = 18, FIND_INIT = 26, FIND = 27, FIND_FINAL = 28,
	ENCRYPT_INIT = 29, DECRYPT_INIT = 33, CKA_LABEL = 3, CKM_AES_GCM = 0x1087,
};

static function_list *f;
static ulong_t slot, key;
static int wraps;
static double seconds;

#define CALL(n, types, args) ((ulong_t(*) types)f->fn[n]) args
static void must(const char *what, ulong_t rv) {
	if (rv) { fprintf(stderr, "bareloop: %s: 0x%lx\n", what, rv); exit(1); }
}

static double now(void) {
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static ulong_t open_session(void) {
	ulong_t s;
	must("C_OpenSession", CALL(OPEN_SESSION, (ulong_t, ulong_t, void *, void *, ulong_t *), (slot, 6, NULL, NULL, &s)));
	return s;
}

// once makes the two calls of one operation, with a fresh IV where it encrypts.
static ulong_t once(ulong_t s, int call, unsigned char *iv, unsigned char *in, ulong_t in_len, unsigned char *out, ulong_t *out_len) {
	unsigned char aad[128] = {0};
	if (call == ENCRYPT_INIT && getrandom(iv, 12, 0) != 12) return 1;
	gcm_params params = {iv, 12, 96, aad, sizeof aad, 128};
	pair mechanism = {CKM_AES_GCM, &params, sizeof params};
	must("Init", CALL(call, (ulong_t, pair *, ulong_t), (s, &mechanism, key)));
	*out_len = 256;
	return CALL(call + 1, (ulong_t, unsigned char *, ulong_t, unsigned char *, ulong_t *), (s, in, in_len, out, out_len));
}

static void *loop(void *count) {
	ulong_t s = open_session(), sealed_len, out_len;
	unsigned char iv[12], plain[64] = {0}, sealed[256], out[256];
	must("C_Encrypt", once(s, ENCRYPT_INIT, iv, plain, sizeof plain, sealed, &sealed_len));
	for (double end = now() + seconds; now() < end; ++*(long *)count) {
		if (wraps) must("C_Encrypt", once(s, ENCRYPT_INIT, iv, plain, sizeof plain, sealed, &sealed_len));
		must("C_Decrypt", once(s, DECRYPT_INIT, iv, sealed, sealed_len, out, &out_len));
	}
	return NULL;
}

static void find_slot(const char *label) {
	struct { unsigned char label[32], rest[512]; } t;
	ulong_t slots[64], n = 64;
	must("C_GetSlotList", CALL(GET_SLOT_LIST, (unsigned char, ulong_t *, ulong_t *), (1, slots, &n)));
	for (ulong_t i = 0; i < n; i++) {
		must("C_GetTokenInfo", CALL(GET_TOKEN_INFO, (ulong_t, void *), (slots[i], &t)));
		if (!memcmp(t.label, label, strlen(label)) && t.label[strlen(label)] == ' ') { slot = slots[i]; return; }
	}
	fprintf(stderr, "bareloop: no token %s\n", label);
	exit(1);
}

static void find_key(ulong_t s, char *label) {
	pair wanted = {CKA_LABEL, label, strlen(label)};
	ulong_t found = 0;
	must("C_FindObjectsInit", CALL(FIND_INIT, (ulong_t, pair *, ulong_t), (s, &wanted, 1)));
	must("C_FindObjects", CALL(FIND, (ulong_t, ulong_t *, ulong_t, ulong_t *), (s, &key, 1, &found)));
	must("C_FindObjectsFinal", CALL(FIND_FINAL, (ulong_t), (s)));
	must("finding the key", found != 1);
}

int main(int argc, char **argv) {
	if (argc != 8) return 2;
	struct { void *create, *destroy, *lock, *unlock; ulong_t flags; void *reserved; } args = {.flags = 2}; // CKF_OS_LOCKING_OK
	void *lib = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
	ulong_t (*get)(function_list **) = lib ? (ulong_t(*)(function_list **))dlsym(lib, "C_GetFunctionList") : NULL;
	if (!get || get(&f)) { fprintf(stderr, "bareloop: the module does not load\n"); return 1; }
	must("C_Initialize", CALL(INITIALIZE, (void *), (&args)));
	find_slot(argv[2]);
	ulong_t s = open_session();
	must("C_Login", CALL(LOGIN, (ulong_t, ulong_t, char *, ulong_t), (s, 1, argv[3], strlen(argv[3]))));
	find_key(s, argv[4]);
	wraps = !strcmp(argv[5], "wrap");
	int threads = atoi(argv[6]);
	seconds = atof(argv[7]);
	pthread_t *ids = calloc(threads, sizeof *ids);
	long *counts = calloc(threads, 8 * sizeof *counts), sum = 0; // one cache line each
	for (int i = 0; i < threads; i++) pthread_create(&ids[i], NULL, loop, &counts[8 * i]);
	for (int i = 0; i < threads; i++) { pthread_join(ids[i], NULL); sum += counts[8 * i]; }
	printf("%.0f\n", sum / seconds);
	return 0;
}
