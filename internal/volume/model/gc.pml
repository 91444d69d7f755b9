/* Garbage collection, deduplication and the index: two instances over one head; a pause is any interleaving.
   With -DFOREIGN somebody writes beside the head (stock restic, a diverged snapshot) and pins by a lock.
   Mutants (M_...) each break one rule. */
#ifdef ORPHAN
#define ORPH exist
#else
#define ORPH 0
#endif
/* GC / dedupe / index model. 2 instances over one head with an atomic CAS; pauses = interleavings.
   packs 0..3 ; head: et, epoch, ref (packs of the newest snapshot; older are forgotten), cond (condemned)
   store: exist (packs), idx (packs listed in some index object).
   Invariant: head.ref subset of exist. */
#define NI 2
#ifdef M_DOOM
#define DOOM 0
#else
#define DOOM doom[i]
#endif
#define B(x) (1<<(x))
#ifndef MAXW
#define MAXW 9
#endif
#define NP 4
byte h_et=0, h_ep=0, h_ref=1, h_cond=0;
byte exist=1, idx=1, np=1, w=0;
#ifdef FOREIGN
#ifndef MAXF
#define MAXF 2
#endif
byte f_refs=0, f_use=0, f_known=0, f_n=0, f_st=0;   /* what its snapshots need; 1: locked, 2: packs chosen or stored */
byte rem[NI]; bit waitf[NI];                        /* out of the index; a lock older than that is there */
#define inv assert((h_ref & ~exist)==0 && (f_refs & ~exist)==0)
#define FREFS f_refs
#else
#define FREFS 0
#define inv assert((h_ref & ~exist)==0)
#endif
/* per instance */
byte et[NI], ep[NI], cond[NI], ref[NI], my[NI];  /* my: packs it believes it may dedupe against */
bit hold[NI], loaded[NI]; 
byte snp[NI];      /* refs of a snapshot in preparation; 0=none */
byte mark[NI]; bit marked[NI]; byte mref[NI];
byte doom[NI];     /* packs condemned since its snapshot began */
byte del[NI];      /* packs it decided to delete (deletes may be issued any time later) */
byte lateidx[NI];  /* index object PUT in flight, content frozen */
byte cmpi[NI];     

#define holder(i) (hold[i])
inline adopt(i) { et[i]=h_et; ep[i]=h_ep; cond[i]=h_cond; ref[i]=h_ref }

proctype inst(byte i) {
 byte p;
 do
 /* warm: load the index at any time before the claim */
#ifdef M_WARMIDX
 :: atomic { !hold[i] && !loaded[i] -> my[i]=idx; loaded[i]=1 }
#endif
 /* claim: TTL is nondeterminism */
 :: atomic { !hold[i] && w<MAXW -> w++; h_et=w; h_ep++; adopt(i); hold[i]=1; snp[i]=0; marked[i]=0; mark[i]=0; mref[i]=0;
#ifdef M_WARMIDX
      if :: loaded[i] -> skip :: else -> my[i]=idx fi;
#else
#ifdef M_NOLIST
      my[i]=idx;
#else
      my[i]=idx & exist;   /* index AND a listing of data/ */
#endif
#endif
      loaded[i]=1 }
 /* snapshot: dedupe against a known pack that is not condemned, or upload a new one */
 :: atomic { hold[i] && snp[i]==0 -> 
      if
      :: (my[i]&~cond[i]&B(0)) -> snp[i]=B(0)
      :: (my[i]&~cond[i]&B(1)) -> snp[i]=B(1)
      :: (my[i]&~cond[i]&B(2)) -> snp[i]=B(2)
      :: np<NP -> snp[i]=B(np); exist=exist|B(np); my[i]=my[i]|B(np); 
           if :: lateidx[i]==0 -> lateidx[i]=B(np); np++ :: else -> idx=idx|B(np); np++ fi
      fi; doom[i]=0 }
 /* index object lands (any time: commit waits for it; a deposed/timed out one may land late) */
 :: atomic { lateidx[i]!=0 -> idx=idx|lateidx[i]; lateidx[i]=0 }
 /* commit */
 :: atomic { hold[i] && snp[i]!=0 && w<MAXW && (snp[i]&lateidx[i])==0 -> 
      if
      :: h_et!=et[i] -> hold[i]=0; snp[i]=0; my[i]=0; loaded[i]=0; marked[i]=0;mark[i]=0;mref[i]=0   /* deposed */
#ifndef M_COMMITCHK
      :: h_et==et[i] && (snp[i]&(h_cond|DOOM))!=0 -> snp[i]=0                 /* refuse: start over */
      :: h_et==et[i] && (snp[i]&(h_cond|DOOM))==0 -> 
#else
      :: h_et==et[i] ->
#endif
         w++; h_et=w; h_ref=snp[i]; snp[i]=0; adopt(i); inv
      fi }
 /* GC phase 1: mark */
 :: atomic { hold[i] && !marked[i] -> mark[i]=(my[i]|ORPH)&~ref[i]&~cond[i]&~FREFS; mref[i]=ref[i]; marked[i]=1 }
 /* condemn */
 :: atomic { hold[i] && marked[i] && mark[i]!=0 && w<MAXW ->
      if
      :: h_et!=et[i] -> hold[i]=0; snp[i]=0; my[i]=0; loaded[i]=0; marked[i]=0;mark[i]=0;mref[i]=0
      :: h_et==et[i] -> w++; h_et=w;
#ifdef M_MARK
          h_cond=h_cond|(mark[i]&~snp[i]);
#else
#ifdef NOPIN
          h_cond=h_cond|(mark[i]&~h_ref);
#else
          h_cond=h_cond|(mark[i]&~h_ref&~snp[i]);   /* against the head being replaced and the snapshot under way */
#endif
#endif
          if :: snp[i]!=0 -> doom[i]=doom[i]|mark[i] :: else fi;
          adopt(i); marked[i]=0; mark[i]=0; mref[i]=0
      fi }
 :: atomic { hold[i] && marked[i] && mark[i]==0 -> marked[i]=0; mref[i]=0 }
 /* GC phase 2: read head in same epoch -> decide; index rewritten without; then DELETE any time later, even deposed */
#ifdef FOREIGN   /* out of the index; wait for every older lock; look again what snapshots reach; DELETE any time later */
 :: atomic { hold[i] && h_ep==ep[i] && (cond[i]&~rem[i])!=0 -> rem[i]=cond[i]; idx=idx&~rem[i]; my[i]=my[i]&~rem[i]; waitf[i]=(f_st!=0) }
#ifdef M_NOWAIT
 :: atomic { hold[i] && h_ep==ep[i] && (rem[i]&~del[i])!=0 ->
#else
 :: atomic { hold[i] && h_ep==ep[i] && (rem[i]&~del[i])!=0 && !waitf[i] ->
#endif
#ifdef M_NOLOOK
      del[i]=rem[i]
#else
      del[i]=rem[i]&~f_refs; idx=idx|(rem[i]&f_refs&exist); rem[i]=del[i]
#endif
    }
#else
 :: atomic { hold[i] && h_ep==ep[i] && cond[i]!=0 && (cond[i]&~del[i])!=0 -> del[i]=cond[i];
#ifdef RECHECK
      del[i]=del[i]&~h_ref;
#endif
      idx=idx&~del[i]; my[i]=my[i]&~del[i] }
#endif
 :: atomic { (del[i]&exist&B(0)) -> exist=exist&~B(0); inv }
 :: atomic { (del[i]&exist&B(1)) -> exist=exist&~B(1); inv }
 :: atomic { (del[i]&exist&B(2)) -> exist=exist&~B(2); inv }
 :: atomic { (del[i]&exist&B(3)) -> exist=exist&~B(3); inv }
 /* list entry leaves: only when the pack is confirmed gone */
 :: atomic { hold[i] && h_et==et[i] && w<MAXW && (h_cond&~exist&~idx)!=0 -> w++; h_et=w; h_cond=h_cond&(exist|idx); adopt(i) }
#ifdef M_UNCOND   /* uncondemn while the pack still exists */
 :: atomic { hold[i] && h_et==et[i] && w<MAXW && (h_cond&exist)!=0 -> w++; h_et=w; h_cond=h_cond&~exist; my[i]=my[i]|(cond[i]&exist); adopt(i) }
#endif
 /* deposed notices */
 :: atomic { hold[i] && h_ep!=ep[i] -> hold[i]=0; snp[i]=0; my[i]=0; loaded[i]=0; marked[i]=0;mark[i]=0;mref[i]=0 }
#ifdef M_COMPACT  /* compaction: freeze the index content, land later; deposed or not */
 :: atomic { hold[i] && lateidx[i]==0 && h_ep==ep[i] -> lateidx[i]=idx }
#endif
 od
}
#ifdef FOREIGN
proctype foreign() {
 do
 :: atomic { f_st==0 && f_n<MAXF -> f_n++; f_known=idx; f_st=1 }   /* lock, then load the index */
 :: atomic { f_st==1 ->
      if
      :: (f_known&B(0)) -> f_use=B(0)
      :: (f_known&B(1)) -> f_use=B(1)
      :: (f_known&B(2)) -> f_use=B(2)
      :: np<NP -> f_use=B(np); exist=exist|B(np); idx=idx|B(np); np++
      fi; f_st=2 }
 :: atomic { f_st==2 -> f_refs=f_refs|f_use; f_use=0; f_st=0; waitf[0]=0; waitf[1]=0; inv }   /* snapshot object stored; unlock */
 :: atomic { f_st==1 -> f_st=0; waitf[0]=0; waitf[1]=0 }
 od
}
#endif
init { atomic { run inst(0); run inst(1);
#ifdef FOREIGN
 run foreign();
#endif
 } }
