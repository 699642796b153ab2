// SPDX-License-Identifier: Apache-2.0
import PenstockTesting
import Testing

@Suite struct Choosers {
  @Test func everyCombinationComesOnce() {
    var chooser = ExhaustiveChooser()
    var seen: [[Int]] = []
    while chooser.next() { seen.append([chooser.choose(2), chooser.choose(1), chooser.choose(3)]) }
    #expect(
      seen == [[0, 0, 0], [0, 0, 1], [0, 0, 2], [1, 0, 0], [1, 0, 1], [1, 0, 2]])
    #expect(chooser.rounds == 6)
    let another = chooser.next()
    #expect(!another)
  }

  @Test func laterQuestionsMayDependOnAnswers() {
    var chooser = ExhaustiveChooser()
    var count = 0
    while chooser.next() {
      let length = chooser.choose(5)
      for _ in 0..<length { _ = chooser.pick(["a", "b"]) }
      count += 1
    }
    #expect(count == 1 + 2 + 4 + 8 + 16)
  }

  @Test func noQuestionIsOneRound() {
    var chooser = ExhaustiveChooser()
    while chooser.next() {}
    #expect(chooser.rounds == 1)
  }

  @Test func seedsDecideAndReachEverything() {
    var seen: Set<[Int]> = []
    for seed in 0..<200 as Range<UInt64> {
      var one = SeededChooser(seed: seed)
      var two = SeededChooser(seed: seed)
      let answers = (0..<3).map { _ in one.choose(3) }
      let same = (0..<3).map { _ in two.choose(3) }
      #expect(answers == same)
      seen.insert(answers)
    }
    #expect(seen.count == 27)
  }
}

@Suite struct RandomAndTime {
  @Test func numbersAreTheSameForEver() {
    // The published first outputs of SplitMix64 for this seed.
    let random = StableRandom(seed: 1_234_567)
    #expect(random.next() == 6_457_827_717_110_365_317)
    #expect(random.next() == 3_203_168_211_198_807_973)
    #expect(random.next() == 9_817_491_932_198_370_423)
  }

  @Test func ratiosHold() {
    let random = StableRandom(seed: 1)
    var counts = [0, 0, 0]
    for _ in 0..<3000 { counts[random.below(3)] += 1 }
    #expect(counts.allSatisfy { (900...1100).contains($0) })
    #expect((0..<100).allSatisfy { _ in random.chance(1, of: 1) && !random.chance(0, of: 9) })
  }

  @Test func timeMovesWhenTold() {
    let clock = SimulatedClock(wallMilliseconds: 5_000, monotonicNanoseconds: 7)
    #expect(clock.wallMilliseconds() == 5_000)
    clock.advance(by: .microseconds(600))
    clock.advance(by: .microseconds(600))
    #expect(clock.wallMilliseconds() == 5_001)
    #expect(clock.monotonicNanoseconds() == 1_200_007)
    clock.setWall(milliseconds: -3)
    clock.advance(by: .seconds(2))
    #expect(clock.wallMilliseconds() == 1_997)
    #expect(clock.monotonicNanoseconds() == 2_001_200_007)
  }
}
