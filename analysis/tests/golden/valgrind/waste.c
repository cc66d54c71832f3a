#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <sys/wait.h>
static void *kept[100000]; static int nkept;
static char *interior[10000]; static int ni;
__attribute__((noinline)) void lose(void){ volatile char *p = malloc(100); p[0]=1; }
__attribute__((noinline)) void keep(void){ kept[nkept++] = malloc(200); }
__attribute__((noinline)) void possibly(void){ interior[ni++] = (char*)malloc(300)+8; }
struct node { struct node *next; char pad[56]; };
__attribute__((noinline)) void lose_tree(void){ struct node *a=calloc(1,sizeof *a); a->next=calloc(1,sizeof *a); __asm__ volatile(""::"r"(a):"memory"); }
__attribute__((noinline)) void bad_read(void){ char *p=malloc(10); volatile char c=p[12]; (void)c; free(p); }
__attribute__((noinline)) void uninit(void){ int *p=malloc(40); if(p[3]>5) puts("big"); free(p); }
int main(int argc,char**argv){
  int fd = argc>1; char b;
  if (fork()){ wait(NULL); return 0; }
  for(;;){ if(read(0,&b,1)<=0) break; if(b=='q') break; if(b!='g') continue;
    for(int i=0;i<500;i++){ lose(); keep(); possibly(); lose_tree(); }
    bad_read(); uninit(); puts("done"); fflush(stdout);
  }
  return 0; }
