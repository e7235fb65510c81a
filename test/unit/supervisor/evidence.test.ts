import test from 'ava';
import {
  judgeDeafness,
  judgeSilence,
  judgeStillness,
  limitsFor,
  patient,
  type Silence,
  type Stillness,
} from '../../../supervisor/recovery/evidence.js';
import { Carrier } from '../../../supervisor/recovery/link.js';
import { readThreads, usedSince } from '../../../supervisor/recovery/threads.js';

const KVM = limitsFor({ heartbeatMs: 50, misses: 3 }, 'kvm');
const TCG = limitsFor({ heartbeatMs: 50, misses: 3 }, 'tcg');

test('limits: the accelerator’s own, unless the configuration says otherwise', t => {
  t.deepEqual(KVM, { haltedMs: 150, busyMs: 150, stillMs: 150, silentMs: 150 });
  t.is(TCG.haltedMs, 250);
  t.true(TCG.busyMs > KVM.busyMs && TCG.stillMs > KVM.stillMs && TCG.silentMs > KVM.silentMs);
  t.like(limitsFor({ heartbeatMs: 50, misses: 3, busyMs: 400 }, 'tcg'), {
    busyMs: 400,
    stillMs: TCG.stillMs,
  });
  t.like(limitsFor({ heartbeatMs: 1000, misses: 10 }, 'tcg'), { haltedMs: 10_000, busyMs: 10_000 });
});

test('while connections are replayed, only what is certain is as quick', t => {
  t.deepEqual(patient(TCG), { ...TCG, busyMs: TCG.stillMs, silentMs: TCG.stillMs });
});

const rests: Stillness = {
  stillMs: 700,
  watchedMs: 650,
  vcpuMs: 0.4,
  emulatorMs: 0.6,
  mainWaitedMs: 0,
  vcpuWaitedMs: 0,
  stolenMs: 0,
  blockedMs: 0,
  unansweredMs: 100,
};
const runs: Stillness = { ...rests, stillMs: 500, watchedMs: 450, vcpuMs: 450, unansweredMs: 0 };

const STILLNESS: [what: string, evidence: Stillness, limits: typeof KVM, hung: boolean][] = [
  ['all vCPUs are halted', rests, TCG, true],
  ['only for a while (measured in a healthy guest)', { ...rests, stillMs: 200, watchedMs: 150 }, TCG, false],
  ['so long on a real CPU', { ...rests, stillMs: 200, watchedMs: 150 }, KVM, true],
  ['not for long enough', { ...rests, stillMs: 240 }, TCG, false],
  ['the agent died, the kernel rests and answers', { ...rests, stillMs: 5000, unansweredMs: 0 }, KVM, false],
  ['asked just now', { ...rests, unansweredMs: 20 }, TCG, false],
  ['a thread waits for the host’s disk', { ...rests, blockedMs: 50 }, TCG, false],
  ['the host did not run it', { ...rests, vcpuWaitedMs: 500 }, TCG, false],
  ['the host itself was not run', { ...rests, stolenMs: 500 }, TCG, false],
  ['the emulator’s I/O thread is busy', { ...rests, emulatorMs: 120 }, TCG, false],
  ['an emulated vCPU is busy for a while', runs, TCG, false],
  ['the same on a real CPU', runs, KVM, true],
  ['an emulated vCPU is busy for too long', { ...runs, stillMs: 650, vcpuMs: 600 }, TCG, true],
  [
    'it runs on a host that gives it a tenth of a CPU',
    { ...runs, stillMs: 6000, watchedMs: 5950, vcpuMs: 600, mainWaitedMs: 4000, vcpuWaitedMs: 5420 },
    TCG,
    false,
  ],
  [
    'a spin on a host so busy that it waits all the time',
    { ...runs, stillMs: 12_000, watchedMs: 11_950, vcpuMs: 3100, mainWaitedMs: 11_000, vcpuWaitedMs: 9000 },
    TCG,
    true,
  ],
  [
    'too long by the clock, but it waited for a CPU',
    { ...runs, stillMs: 3100, vcpuMs: 300, mainWaitedMs: 1000, vcpuWaitedMs: 1000 },
    TCG,
    false,
  ],
  [
    'a spin on a host that is busy as well (measured)',
    { ...runs, stillMs: 15_300, watchedMs: 15_200, vcpuMs: 8336, mainWaitedMs: 6800, vcpuWaitedMs: 7000 },
    TCG,
    true,
  ],
  [
    'too long, whatever it does',
    { ...runs, stillMs: TCG.stillMs + 50, vcpuMs: 300, blockedMs: 50 },
    TCG,
    true,
  ],
];

for (const [what, evidence, limits, hung] of STILLNESS) {
  test(`heartbeat: ${what}: ${hung ? 'hung' : 'not hung'}`, t => {
    const why = judgeStillness(evidence, limits);
    t.is(why !== undefined, hung, why);
  });
}

const silent: Silence = { carrier: true, carrierLostMs: 0, askedMs: 200, asked: 3, beats: 20 };

const SILENCE: [what: string, evidence: Silence, limits: typeof KVM, cut: boolean][] = [
  ['asked thrice, no frame, a heart that beats', silent, KVM, true],
  ['asked twice', { ...silent, asked: 2 }, KVM, false],
  ['it has a frame’s time yet', { ...silent, askedMs: 120 }, KVM, false],
  ['its heart stands still: judged by that', { ...silent, askedMs: 5000, beats: 1 }, KVM, false],
  ['the same under emulation', silent, TCG, false],
  ['long enough under emulation', { ...silent, askedMs: TCG.silentMs, beats: 30 }, TCG, true],
  ['the tap is down', { ...silent, carrier: false, carrierLostMs: 80, askedMs: 0, asked: 0 }, TCG, true],
  [
    'it has just gone down, perhaps with its QEMU',
    { ...silent, carrier: false, carrierLostMs: 10 },
    TCG,
    false,
  ],
];

for (const [what, evidence, limits, cut] of SILENCE) {
  test(`link: ${what}: ${cut ? 'cut' : 'not cut'}`, t => {
    const why = judgeSilence(evidence, limits);
    t.is(why !== undefined, cut, why);
  });
}

test('clients: deaf after three unanswered questions and the time that silence may take', t => {
  t.is(judgeDeafness({ asked: 3, unansweredMs: 2000 }, TCG), undefined);
  t.is(judgeDeafness({ asked: 4, unansweredMs: 200 }, TCG), undefined);
  t.regex(judgeDeafness({ asked: 4, unansweredMs: 3000 }, TCG) ?? '', /acknowledges nothing/);
});

test('what this process used shows in its own threads', t => {
  const before = readThreads(process.pid);
  const until = performance.now() + 60;
  while (performance.now() < until);
  const { emulatorMs, vcpuMs } = usedSince(before, readThreads(process.pid));
  t.true(emulatorMs > 10, `${emulatorMs} ms`);
  t.is(vcpuMs, 0);
  t.is(readThreads(undefined).tasks.size, 0);
});

test('a carrier is lost from the first look without it, less what the looks were late', t => {
  const carrier = new Carrier();
  const [up, down, gone, unknown] = [
    [0, 0x41] as const,
    [0, 1] as const,
    [-19, 0] as const,
    [-105, 0] as const,
  ];
  t.is(carrier.look(1000, 0, ...up), undefined);
  // A second late: when it was lost is not known.
  t.is(carrier.look(2000, 950, ...down), 0);
  t.is(carrier.look(2050, 0, ...down), 50);
  t.is(carrier.look(2200, 100, ...gone), 100);
  t.is(carrier.look(2250, 0, ...unknown), undefined, 'not to be told is no evidence');
  t.is(carrier.look(2300, 0, ...down), 200);
  t.is(carrier.look(2350, 0, ...up), undefined);
  t.is(carrier.look(2400, 0, ...unknown), undefined);
  t.is(carrier.look(2450, 0, ...gone), 0);
});
