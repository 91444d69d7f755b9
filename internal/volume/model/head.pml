/* The head: claim, renew, commit, release with ambiguous, late and duplicated conditional PUTs; crash and restart
   with the local record; with -DCLONE a cloned disk, with -DVMROLL a machine rolled back (memory and disk), with
   -DPOWER a power cut that takes the page cache, with -DRELEASE orderly ends. -DNI=3: three instances. A TTL is
   nondeterminism: anybody may claim at any time. The ETag is the write id. Mutants (M_...) each break one rule. */
#ifndef MAXW
#define MAXW 5          /* fresh head writes */
#endif
#ifndef MAXS
#define MAXS 3          /* snapshots */
#endif
#ifndef MAXC
#define MAXC 2          /* crashes */
#endif
#ifndef NI
#define NI 2
#endif
#define DOWN 0
#define RDY  1
#define SENT 2
#define READB 3
#define GOT 4
#define TAKE 5
#define IDLE 6
#define CAP 7
#define POST 8
#define CLAIM 1
#define COMMIT 2
#define RENEW 3
#define REL 4
#define LOST 255
#define B(x) (1<<(x))

typedef Req { bit used; byte im; byte ep; byte cn; byte wid; byte snap };
typedef Inst {
  byte mode; byte kind; byte et; byte ep; byte cn; byte snap;
  byte pw; byte pe; byte pc; byte ps; byte pim; byte qcn;
  byte xet; byte xep; byte xcn; byte xwid; byte xsnap; byte resp;
  bit rv; byte rep; byte rcn; byte rlast; byte rint; byte rclaim; byte loc;
  byte dur; bit rsl; bit rsi; bit cut   /* on the platter; synced last and intended; another boot than the record's */
};
Req net[2*NI];
Inst I[NI];
#ifdef VMROLL
Inst saved; byte vm = 0;
#endif
#ifdef CLONE
bit cloned = 0;
#endif
byte h_et=0, h_ep=0, h_cn=0, h_snap=0;
byte nextw=1, nexts=1, crashes=0;
byte content[MAXS+2]; byte exist=1; byte acked=0;
bit bad=0;

inline inv() { assert((acked & ~content[h_snap]) == 0); assert((exist & B(h_snap)) != 0) }

inline copyinst(d,s) {
  d.mode=s.mode; d.kind=s.kind; d.et=s.et; d.ep=s.ep; d.cn=s.cn; d.snap=s.snap;
  d.pw=s.pw; d.pe=s.pe; d.pc=s.pc; d.ps=s.ps; d.pim=s.pim; d.qcn=s.qcn;
  d.xet=s.xet; d.xep=s.xep; d.xcn=s.xcn; d.xwid=s.xwid; d.xsnap=s.xsnap; d.resp=0;
  d.rv=s.rv; d.rep=s.rep; d.rcn=s.rcn; d.rlast=s.rlast; d.rint=s.rint; d.rclaim=s.rclaim; d.loc=s.loc;
  d.dur=s.dur; d.rsl=s.rsl; d.rsi=s.rsi; d.cut=s.cut
}
inline rd(i) { I[i].xet=h_et; I[i].xep=h_ep; I[i].xcn=h_cn; I[i].xwid=h_et; I[i].xsnap=h_snap }
inline put(i) {
  if
  :: !net[2*i].used -> net[2*i].used=1; net[2*i].im=I[i].pim; net[2*i].ep=I[i].pe; net[2*i].cn=I[i].pc; net[2*i].wid=I[i].pw; net[2*i].snap=I[i].ps
  :: net[2*i].used && !net[2*i+1].used -> net[2*i+1].used=1; net[2*i+1].im=I[i].pim; net[2*i+1].ep=I[i].pe; net[2*i+1].cn=I[i].pc; net[2*i+1].wid=I[i].pw; net[2*i+1].snap=I[i].ps
  fi; I[i].mode=SENT; I[i].resp=0;
  I[i].xet=0; I[i].xep=0; I[i].xcn=0; I[i].xwid=0; I[i].xsnap=0
}
#define canput(i) (!net[2*i].used || !net[2*i+1].used)
inline scrub(i) { I[i].kind=0; I[i].pw=0; I[i].pe=0; I[i].pc=0; I[i].ps=0; I[i].pim=0; I[i].qcn=0; I[i].xet=0; I[i].xep=0; I[i].xcn=0; I[i].xwid=0; I[i].xsnap=0; I[i].resp=0 }
inline down(i) { scrub(i); I[i].mode=DOWN; I[i].et=0; I[i].ep=0; I[i].cn=0; I[i].snap=0 }
inline success(i) {
  if
  :: I[i].kind==CLAIM -> I[i].mode=TAKE
  :: I[i].kind==COMMIT -> acked = acked | B(I[i].ps); I[i].et=I[i].pw; I[i].snap=I[i].ps; I[i].mode=POST; inv()
  :: I[i].kind==RENEW -> I[i].et=I[i].pw; I[i].mode=IDLE; scrub(i)
  :: I[i].kind==REL -> assert((I[i].loc & ~content[I[i].ps])==0); down(i)   /* what is released is committed */
  fi
}

proctype inst(byte i) {
 do
 :: atomic { I[i].mode==DOWN && nextw<=MAXW -> rd(i); I[i].mode=RDY }
#ifdef M_NORECLAIM
 :: atomic { I[i].mode==RDY && I[i].rv && I[i].rep==I[i].xep && I[i].rcn==I[i].xcn ->
      I[i].et=I[i].xet; I[i].ep=I[i].xep; I[i].cn=I[i].xcn; I[i].snap=I[i].xsnap; I[i].mode=IDLE; scrub(i) }
#endif
 :: atomic { I[i].mode==RDY && nextw<=MAXW && canput(i) ->
      I[i].kind=CLAIM; I[i].pw=nextw; nextw++; I[i].pe=I[i].xep+1; I[i].pc=I[i].pw; I[i].ps=I[i].xsnap; I[i].pim=I[i].xet; I[i].qcn=I[i].xcn;
      I[i].rclaim=I[i].pw; /* record: intent of claim, before the PUT */
#ifdef M_LATEFORGET  /* the record now bears this boot's id; what was not synced is not struck from it */
      I[i].cut=0;
#endif
      put(i) }
 :: atomic { I[i].mode==SENT && I[i].resp==1 -> I[i].resp=0; success(i) }
 :: atomic { I[i].mode==SENT && I[i].resp==2 -> I[i].resp=0; I[i].mode=READB }
 :: atomic { I[i].mode==SENT && I[i].resp==0 -> I[i].mode=READB }   /* timeout */
 :: atomic { I[i].mode==READB -> rd(i); I[i].mode=GOT }
 :: atomic { I[i].mode==GOT ->
     if
#ifdef M_NONCE
     :: I[i].kind!=CLAIM && I[i].xep==I[i].pe && I[i].xcn==I[i].pc -> success(i)
#endif
     :: I[i].xwid==I[i].pw -> success(i)
     :: I[i].xwid!=I[i].pw && I[i].xet==I[i].pim ->
#ifdef M_GIVEUP   /* base unchanged taken as 'refused': drop snapshot */
          if :: I[i].kind==COMMIT -> exist = exist & ~B(I[i].ps) :: else fi; down(i)
#else
          if :: canput(i) -> put(i) :: else -> I[i].mode=READB fi
#endif
     :: I[i].xwid!=I[i].pw && I[i].xet!=I[i].pim && I[i].kind==CLAIM -> I[i].mode=RDY
     :: I[i].xwid!=I[i].pw && I[i].xet!=I[i].pim && I[i].kind!=CLAIM ->
         if
#ifdef M_RETRY
         :: I[i].xep==I[i].pe && nextw<=MAXW && canput(i) -> I[i].pim=I[i].xet; I[i].pw=nextw; nextw++; put(i)
         :: I[i].xep!=I[i].pe ->
#else
         :: else ->
#endif
#ifdef M_DEL
            if :: I[i].kind==COMMIT -> exist = exist & ~B(I[i].ps); inv() :: else fi;
#endif
            down(i)
         fi
     fi }
 :: atomic { I[i].mode==TAKE ->  /* claim landed: keep or restore, then write the record */
     if
#ifdef M_SEQ   /* the text: epoch and nonce only */
     :: I[i].rv && I[i].rep==I[i].pe-1 && I[i].rcn==I[i].qcn ->
#else
     :: I[i].rv && !I[i].cut && (I[i].rlast==I[i].ps || I[i].rint==I[i].ps) ->
#endif
          assert((content[I[i].ps] & ~I[i].loc)==0);   /* keep local: must contain the head's state */
          if :: I[i].rlast!=I[i].ps -> I[i].rsl=I[i].rsi :: else fi
     :: else ->
#ifdef KEEPCHK
          assert(I[i].rv==0 || (I[i].loc & ~content[I[i].ps])==0 );
#endif
          I[i].loc = content[I[i].ps]; I[i].rint=I[i].ps; I[i].cut=0;
#ifdef POWER
          if :: I[i].dur=I[i].loc; I[i].rsl=1 :: I[i].rsl=0 fi;
#endif
          I[i].rsi=I[i].rsl
     fi;
     I[i].rv=1; I[i].rep=I[i].pe; I[i].rcn=I[i].pc; I[i].rlast=I[i].ps; 
     I[i].et=I[i].pw; I[i].ep=I[i].pe; I[i].cn=I[i].pc; I[i].snap=I[i].ps; I[i].mode=IDLE; I[i].rclaim=0; scrub(i) }
 :: atomic { I[i].mode==IDLE && nexts<=MAXS && nextw<=MAXW ->   /* capture + objects stored + record intent */
      I[i].ps=nexts; nexts++; I[i].loc=(I[i].loc & 127) | B(I[i].ps); content[I[i].ps]=I[i].loc & 127; exist=exist|B(I[i].ps);
#ifndef M_NOINTENT
      I[i].rint=I[i].ps;
#endif
#ifdef POWER
      if :: I[i].dur=I[i].loc; I[i].rsi=1 :: I[i].rsi=0 fi;
#endif
      I[i].kind=COMMIT; I[i].mode=CAP }
 :: atomic { I[i].mode==IDLE && nextw<=MAXW -> I[i].ps=I[i].snap; I[i].kind=RENEW; I[i].mode=CAP }
#ifdef RELEASE
#ifdef M_RELEASE   /* releases what was written since the last commit, uncommitted */
 :: atomic { I[i].mode==IDLE && nextw<=MAXW -> I[i].ps=I[i].snap; I[i].kind=REL; I[i].mode=CAP }
#else
 :: atomic { I[i].mode==IDLE && nextw<=MAXW && (I[i].loc & ~content[I[i].snap])==0 -> I[i].ps=I[i].snap; I[i].kind=REL; I[i].mode=CAP }
#endif
#endif
 :: atomic { I[i].mode==CAP && nextw<=MAXW && canput(i) -> I[i].pw=nextw; nextw++; I[i].pe=I[i].ep; I[i].pc=I[i].cn; I[i].pim=I[i].et; put(i) }
#ifdef KEEPCHK
 :: atomic { (I[i].mode==IDLE||(I[i].mode==SENT && I[i].kind==COMMIT)||I[i].mode==POST) && (I[i].loc&128)==0 -> I[i].loc=I[i].loc|128 } /* app writes after the capture */
#endif
 :: atomic { I[i].mode==POST -> I[i].rlast=I[i].ps; I[i].rsl=I[i].rsi; I[i].mode=IDLE; scrub(i) }
 :: atomic { I[i].mode!=DOWN && crashes<MAXC -> crashes++; down(i) }
#ifdef POWER   /* the page cache is gone, whole; the record is not */
 :: atomic { I[i].mode!=DOWN && crashes<MAXC -> crashes++; down(i); I[i].loc=I[i].dur;
#ifndef M_NOSYNC
#ifdef M_LATEFORGET
      I[i].cut = (1-I[i].rsl)
#else
      if :: !I[i].rsl -> I[i].rlast=LOST :: else fi;
      if :: !I[i].rsi -> I[i].rint=LOST :: else fi
#endif
#else
      skip
#endif
    }
#endif
 od
}
inline clr(r) { net[r].used=0; net[r].im=0; net[r].ep=0; net[r].cn=0; net[r].wid=0; net[r].snap=0 }
inline deliver(r,o) {
     if
     :: net[r].im==h_et -> h_et=net[r].wid; h_ep=net[r].ep; h_cn=net[r].cn; h_snap=net[r].snap; inv();
          if :: I[o].mode==SENT && I[o].pw==net[r].wid && I[o].pim==net[r].im -> I[o].resp=1 :: else fi
     :: net[r].im!=h_et ->
          if :: I[o].mode==SENT && I[o].pw==net[r].wid && I[o].pim==net[r].im -> I[o].resp=2 :: else fi
     fi;
     if :: clr(r) :: skip fi
}
proctype network() {
 do
 :: atomic { net[0].used -> deliver(0,0) }
 :: atomic { net[1].used -> deliver(1,0) }
 :: atomic { net[2].used -> deliver(2,1) }
 :: atomic { net[3].used -> deliver(3,1) }
#if NI>2
 :: atomic { net[4].used -> deliver(4,2) }
 :: atomic { net[5].used -> deliver(5,2) }
 :: atomic { net[4].used -> clr(4) }
 :: atomic { net[5].used -> clr(5) }
#endif
 :: atomic { net[0].used -> clr(0) }
 :: atomic { net[1].used -> clr(1) }
 :: atomic { net[2].used -> clr(2) }
 :: atomic { net[3].used -> clr(3) }
 od
}
#ifdef CLONE
proctype clone() {
  atomic { I[1].mode==DOWN && I[0].rv ->
    I[1].rv=I[0].rv; I[1].rep=I[0].rep; I[1].rcn=I[0].rcn; I[1].rlast=I[0].rlast; I[1].rint=I[0].rint; I[1].rclaim=I[0].rclaim; I[1].loc=I[0].loc; I[1].dur=I[0].dur; I[1].rsl=I[0].rsl; I[1].rsi=I[0].rsi; I[1].cut=I[0].cut }
}
#endif
#ifdef VMROLL
proctype vmroll() {
  atomic { I[0].mode!=DOWN -> copyinst(saved,I[0]) }
  atomic { copyinst(I[0],saved) }
}
#endif
init { atomic { content[0]=1; 
  run inst(0);
#ifndef ONE
 run inst(1);
#endif
#if NI>2
 run inst(2);
#endif
 run network();
#ifdef CLONE
  run clone();
#endif
#ifdef VMROLL
  run vmroll();
#endif
} }
