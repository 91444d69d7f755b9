/* Collection by a holder while others write: survey, condemn, leave the index, delete, in many steps each. A blob of
   which each pack is a copy stands for all blobs: a snapshot needs it or does not. Up to three instances, which may be
   paused and deposed between any two steps; a grace is nondeterminism: it may be over at any time. -DFOREIGN: stock
   restic backs up beside the head, slow at each step. -DFORCE: restic removes all locks and prunes, which must only
   be noticed. Mutants (M_...) each break one rule. */
#ifndef NI
#define NI 2
#endif
#ifndef NP
#define NP 3            /* packs ever; a name is never used again */
#endif
#ifndef MAXC
#define MAXC 2          /* claims */
#endif
#ifndef MAXK
#define MAXK 2          /* captures that store or count on a pack, of all instances */
#endif
#ifndef MAXR
#define MAXR 4          /* surveys */
#endif
#ifndef MAXF
#define MAXF 1          /* backups of restic */
#endif
#define B(x) (1<<(x))

/* the store */
byte data=1, idx=1, np=1;
byte cur=0, h_cond=0; bit h_need;   /* the head: whose write is the newest, list, whether its snapshot needs the blob */
byte objs=0;                        /* snapshot objects of captures, not committed yet, by instance */
byte claims=0, caps=0, runs=0;
#ifdef FOREIGN
bit f_need=0; byte f_st=0, f_known=0, f_use=0, f_n=0;
#define FNEED f_need
#define LOCKED (f_st!=0)
#else
#define FNEED 0
#define LOCKED 0
#endif

/* Between a pack and its index object the lock of an instance is there, too, deposed or not. With STALELOCK
   somebody has removed it. */
#define ATWORK(j) (!mine(j)&&(I[j].cs==1||I[j].us==12))
#ifdef STALELOCK
#define STORING 0
#else
#if NI>2
#define STORING (ATWORK(0)||ATWORK(1)||ATWORK(2))
#else
#define STORING (ATWORK(0)||ATWORK(1))
#endif
#endif

#ifdef FORCE
byte p_st=0, p_data=0, p_idx=0; bit p_need=0;
byte locks=0;                       /* of instances */
#define inv skip
#else
#define inv assert(!h_need || (data&idx)!=0); assert(!FNEED || data!=0)
#endif

typedef Inst {
  bit hold; byte ld, my;            /* index: 1 read, 2 compared with what is stored */
  byte cond, bury;                  /* the list as last written; what it never uses again */
  byte cs, cap;                     /* capture: 1 pack stored, 2 indexed or found, 3 snapshot object stored */
  byte counted;                     /* packs that captures counted on since the survey began */
  byte us, sd, inuse, pl, rp, then; bit sl, reach;  /* survey and plan */
  byte lcond, lout;                 /* wcond and wout when the survey listed the locks */
  byte known, wcond, out, wout      /* sentences: known; lock of then is still there; out of the index; lock of then */
};
Inst I[NI];

inline depose(i) {
  I[i].hold=0; I[i].ld=0; I[i].my=0; I[i].cond=0; I[i].bury=0; I[i].cs=0; I[i].cap=0; I[i].counted=0;
  objs=objs&~B(i); I[i].us=0; endrun(i); I[i].known=0; I[i].wcond=0; I[i].out=0; I[i].wout=0
}
inline endrun(i) { I[i].us=0; I[i].sd=0; I[i].inuse=0; I[i].pl=0; I[i].rp=0; I[i].then=0; I[i].lcond=0; I[i].lout=0; I[i].sl=0; I[i].reach=0 }
inline adopt(i) { cur=B(i); I[i].cond=h_cond; I[i].bury=I[i].bury|h_cond }
#define mine(i) (cur==B(i))
#ifdef INORDER          /* each claims once: 0, then 1, then 2 */
#define MAYCLAIM(i) (i==claims)
#else
#define MAYCLAIM(i) 1
#endif
#ifdef M_CONDEMNED      /* counts on packs that are condemned */
#define usable(i) (I[i].my)
#define REFUSED(i) 0
#else
#define usable(i) (I[i].my&~I[i].bury)
#define REFUSED(i) ((I[i].cap&I[i].bury)!=0)
#endif
#ifdef FORCE
#ifdef M_LOCKLOST       /* does not look for its lock */
#define HASLOCK(i) 1
#else
#define HASLOCK(i) ((locks&B(i))!=0)
#endif
#define EXCL (p_st!=0)
#else
#define HASLOCK(i) 1
#define EXCL 0
#endif

/* p is kept for the blob: a stored copy, not a condemned one if there is another */
inline pick(set) {
  if
  :: (set&B(0)) -> keep=B(0)
  :: (set&B(1)) -> keep=B(1)
  :: (set&B(2)) -> keep=B(2)
#if NP>3
  :: (set&B(3)) -> keep=B(3)
#endif
  :: set==0 -> keep=0
  fi
}

#ifdef M_NOLOCKS      /* condemns without looking for locks */
#define QUIET(i) 1
#else
#define QUIET(i) (!I[i].sl)
#endif
/* What a writer beside the head is storing is not condemned: it would lose nothing by it, but all of it would have to
   be copied. -DWASTE: it may be. */
#if defined(FOREIGN) && !defined(WASTE)
#define NOWASTE(i) assert(f_st!=3 || (I[i].pl&f_use)==0)
#else
#define NOWASTE(i) skip
#endif
#define RESCUED(i) (keep&I[i].cond&I[i].sd)
#ifdef M_RESCUELATE    /* deletes the one condemned copy before the other is rescued */
#define FREE(i) 1
#else
#define FREE(i) (RESCUED(i)==0)
#endif
/* of the condemned, what the survey does not need */
#define STAYS(i) (I[i].sd&I[i].cond&~keep&I[i].known)
#define DROPPABLE(i) (STAYS(i)&idx&(I[i].sl -> ~I[i].lcond : 255))
#ifdef OUT_AS_CONDEMNED   /* found out of the index: only those are waited for who were there at the condemnation, or the claim */
#define REMOVABLE(i) (STAYS(i)&~idx&~((I[i].lout&I[i].out)|(I[i].lcond&~I[i].out)))
#else
#define REMOVABLE(i) (STAYS(i)&~idx&I[i].out&~I[i].lout)
#endif

inline plan(i) {   /* the index is read; deciding is one step: it asks nobody */
  atomic {
    keep=0; copies=0;
    if
    :: I[i].reach ->
       copies=(idx|(I[i].sd&I[i].cond));
       if :: (copies&~I[i].cond) -> copies=copies&~I[i].cond :: else fi;
       pick(copies)
    :: else -> skip
    fi;
    if
    :: QUIET(i) && (I[i].sd&~I[i].cond&~keep&~I[i].inuse)!=0 -> I[i].pl=I[i].sd&~I[i].cond&~keep&~I[i].inuse; I[i].us=5
    :: RESCUED(i)!=0 -> I[i].pl=keep; I[i].us=6; if :: I[i].then=REMOVABLE(i) :: skip fi
#ifdef M_FORGIVE  /* while it is stored, or in the index */
    :: I[i].cond!=0 -> I[i].pl=I[i].cond; I[i].us=9
#else
    :: (I[i].cond&~I[i].sd&~idx)!=0 -> I[i].pl=I[i].cond&~I[i].sd&~idx; I[i].us=9
#endif
    :: FREE(i) && DROPPABLE(i)!=0 -> I[i].pl=DROPPABLE(i); I[i].us=7
#ifdef M_UNCONDEMNED   /* deletes what is not needed without having condemned it */
    :: (I[i].sd&~keep)!=0 && !I[i].sl -> I[i].pl=I[i].sd&~keep; I[i].us=10
#endif
    :: FREE(i) && REMOVABLE(i)!=0 -> I[i].pl=REMOVABLE(i); I[i].us=10
#ifndef OUT_AS_CONDEMNED
    :: FREE(i) && (I[i].cond&I[i].sd&~idx&~keep&~I[i].out)!=0 -> I[i].pl=I[i].cond&I[i].sd&~idx&~keep&~I[i].out; I[i].us=8
#endif
    :: endrun(i)
    fi;
    I[i].sd=0; I[i].reach=0; I[i].inuse=0; I[i].sl=0; I[i].lcond=0; I[i].lout=0; keep=0; copies=0
  }
}
proctype inst(byte i) {
 byte keep=0, copies=0;
 do
 :: atomic { !I[i].hold && claims<MAXC && !mine(i) && !EXCL && MAYCLAIM(i) -> claims++; I[i].hold=1; adopt(i);
#ifdef FORCE
      locks=locks|B(i)
#else
      skip
#endif
    }
 :: atomic { I[i].hold && !mine(i) -> depose(i) }   /* notices; until it does, it goes on */

 /* the index, loaded after the claim: index and a listing of data */
 :: atomic { I[i].hold && I[i].ld==0 -> I[i].my=idx; I[i].ld=1 }
 :: atomic { I[i].hold && I[i].ld==1 -> I[i].my=I[i].my&data; I[i].ld=2 }

 /* a capture that needs the blob */
 :: atomic { I[i].hold && I[i].ld==2 && I[i].cs==0 && caps<MAXK && usable(i)!=0 ->
      pick(usable(i)); I[i].cap=keep; keep=0; caps++; I[i].cs=2 }
 :: atomic { I[i].hold && I[i].ld==2 && I[i].cs==0 && caps<MAXK && usable(i)==0 && np<NP ->
      caps++; I[i].cap=B(np); data=data|B(np); np++; I[i].cs=1 }
 :: atomic { I[i].hold && I[i].cs==1 -> idx=idx|I[i].cap; I[i].my=I[i].my|I[i].cap; I[i].cs=2 }
 :: atomic { I[i].hold && I[i].cs==2 -> objs=objs|B(i); I[i].counted=I[i].counted|I[i].cap; I[i].cs=3 }
 :: atomic { I[i].hold && I[i].cs==3 && mine(i) ->
      if
      :: !HASLOCK(i) && !EXCL -> I[i].cs=0; I[i].cap=0; objs=objs&~B(i); I[i].ld=0; I[i].my=0
#ifdef FORCE
           ; locks=locks|B(i)   /* a new lock, then the index anew */
#endif
      :: !HASLOCK(i) && EXCL -> I[i].cs=0; I[i].cap=0; objs=objs&~B(i); I[i].ld=3; I[i].my=0
      :: HASLOCK(i) && REFUSED(i) -> I[i].cs=0; I[i].cap=0; objs=objs&~B(i)
      :: HASLOCK(i) && !REFUSED(i) ->
#ifdef FORCE
           assert((I[i].cap&data)!=0);
#endif
           h_need=1; adopt(i); I[i].cs=0; I[i].cap=0; objs=objs&~B(i); inv
      fi }
#ifdef FORCE
 :: atomic { I[i].hold && I[i].ld==3 && !EXCL -> locks=locks|B(i); I[i].ld=0 }
#endif
 /* a commit that does not need it; the former snapshot is forgotten */
 :: atomic { I[i].hold && I[i].cs==0 && mine(i) && h_need -> h_need=0; adopt(i) }

 /* the survey: list of the head and its locks, packs, locks, snapshots, index */
 :: atomic { I[i].hold && I[i].us==0 && runs<MAXR -> runs++;
      I[i].wcond=I[i].wcond&I[i].known;
#ifdef M_OLDGRACE   /* what an earlier life condemned counts as waited for */
      I[i].out=I[i].out|(I[i].cond&~I[i].known);
#else
      if :: LOCKED -> I[i].wcond=I[i].wcond|(I[i].cond&~I[i].known) :: else fi;
#endif
      I[i].known=I[i].known|I[i].cond; I[i].counted=0; I[i].reach=h_need&mine(i); I[i].sd=data; I[i].us=2 }
 :: atomic { I[i].us==2 -> I[i].sl=(LOCKED||STORING); I[i].lcond=I[i].wcond; I[i].lout=I[i].wout; I[i].inuse=((I[i].cs==1||I[i].cs==2) -> I[i].cap : 0); I[i].us=3 }
 :: atomic { I[i].us==3 -> I[i].reach=(I[i].reach||h_need||FNEED||objs!=0); I[i].us=4 }
 :: I[i].us==4 -> plan(i)

 /* condemn: what captures counted on meanwhile is taken out */
 :: atomic { I[i].us==5 && mine(i) ->
#ifndef M_COUNTED
      I[i].pl=I[i].pl&~I[i].counted;
#endif
      NOWASTE(i);
      h_cond=h_cond|I[i].pl; adopt(i); I[i].us=11 }
 /* then the locks of that moment */
 :: atomic { I[i].us==11 -> if :: LOCKED -> I[i].wcond=I[i].wcond|I[i].pl :: else fi; I[i].known=I[i].known|I[i].pl; endrun(i) }
 /* rescue */
 :: atomic { I[i].us==6 && (I[i].pl&data)==0 -> endrun(i) }
 :: atomic { I[i].us==6 && (I[i].pl&data)!=0 && np<NP -> I[i].rp=B(np); data=data|B(np); np++; I[i].us=12 }
 :: atomic { I[i].us==6 && (I[i].pl&data)!=0 && np>=NP -> endrun(i) }   /* no room within the bounds */
 :: atomic { I[i].us==12 -> idx=idx|I[i].rp;    /* the captures' index in memory is another */
      if :: I[i].then!=0 -> I[i].pl=I[i].then; I[i].rp=0; I[i].then=0; I[i].us=10 :: else -> endrun(i) fi }
 /* leave the index; then the locks of that moment */
 :: atomic { I[i].us==7 -> idx=idx&~I[i].pl; inv;
#ifdef M_NOSURVEY   /* deleted without a later survey */
      I[i].us=10
#else
      I[i].us=8
#endif
    }
 :: atomic { I[i].us==8 -> I[i].out=I[i].out|I[i].pl; I[i].wout=(LOCKED -> (I[i].wout|I[i].pl) : (I[i].wout&~I[i].pl)); endrun(i) }
 /* delete, any time later, deposed or not; then off the list */
 :: atomic { I[i].us==10 && (I[i].pl&data)!=0 -> pick((I[i].pl&data)); data=data&~keep; keep=0; inv }
 :: atomic { I[i].us==10 && (I[i].pl&data)==0 -> I[i].us=9 }
 :: atomic { I[i].us==9 && mine(i) -> h_cond=h_cond&~I[i].pl;
#if !defined(FORCE) && !defined(M_UNCONDEMNED)
      assert((I[i].pl&(data|idx))==0);
#endif
      I[i].known=I[i].known&~I[i].pl; I[i].wcond=I[i].wcond&~I[i].pl; I[i].out=I[i].out&~I[i].pl; I[i].wout=I[i].wout&~I[i].pl;
      adopt(i); endrun(i) }
 od
}

#ifdef FOREIGN
inline unlocked() {
  f_st=0; f_known=0; f_use=0;
  I[0].wcond=0; I[0].wout=0; I[1].wcond=0; I[1].wout=0;
#if NI>2
  I[2].wcond=0; I[2].wout=0;
#endif
}
proctype foreign() {
 byte keep=0;
 do
 :: atomic { f_st==0 && f_n<MAXF -> f_n++; f_st=1 }                         /* lock */
 :: atomic { f_st==1 -> f_known=idx; f_st=2 }                               /* the index */
 :: atomic { f_st==2 && f_known!=0 -> pick(f_known); f_use=keep; keep=0; f_known=0; f_st=4 }
 :: atomic { f_st==2 && f_known==0 && np<NP -> f_use=B(np); data=data|B(np); np++; f_st=3 }
 :: atomic { f_st==3 -> idx=idx|f_use; f_st=4 }
 :: atomic { f_st==4 -> f_need=1; f_use=0; f_st=5; inv }                    /* the snapshot object */
 :: atomic { (f_st==2 && f_known==0 && np>=NP) || f_st==5 -> unlocked() }
 :: atomic { f_st==0 && f_need -> f_need=0 }                                /* forget */
 od
}
#endif

#ifdef FORCE
proctype force() {   /* unlock --remove-all, prune */
 byte keep=0;
 atomic { p_st=1; locks=0 }
 atomic { p_idx=idx }
 atomic { p_need=(h_need||objs!=0) }
 atomic { p_data=data; if :: p_need -> pick((p_idx&p_data)); p_data=p_data&~keep :: else fi }
 atomic { idx=idx&~p_data }
 do
 :: atomic { (p_data&data)!=0 -> pick((p_data&data)); data=data&~keep }
 :: atomic { (p_data&data)==0 -> p_st=0; p_data=0; p_idx=0; p_need=0; keep=0; break }
 od
}
#endif

init { atomic {
  if :: h_need=1 :: h_need=0 fi;
  claims=1; I[0].hold=1; adopt(0);
#ifdef FORCE
  locks=B(0);
#endif
  run inst(0); run inst(1);
#if NI>2
  run inst(2);
#endif
#ifdef FOREIGN
  run foreign();
#endif
#ifdef FORCE
  run force();
#endif
} }
