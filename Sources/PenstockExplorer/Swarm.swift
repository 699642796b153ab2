// SPDX-License-Identifier: Apache-2.0
internal import PenstockTesting

/// Large histories by seed. Each seed leaves out some operations and some faults, so that the
/// others meet more often than if everything happened everywhere.
enum Swarm {
  static func history(seed: UInt64) -> [Step] {
    let random = StableRandom(seed: seed &* 0x9e37_79b9_7f4a_7c15)
    var steps = [
      Step(
        .machine, random.below(2), random.below(2), random.chance(1, of: 6) ? 1 : 0, 0, 0,
        [2, 4, 16, 64][random.below(4)]),
      Step(.create, 0), Step(.settle),
    ]
    var verbs: [Step.Verb] = []
    for (verb, weight) in weights where verb == .send || random.chance(2, of: 3) {
      verbs += Array(repeating: verb, count: weight)
    }
    for _ in 0..<(10 + random.below(50)) {
      steps.append(step(verbs[random.below(verbs.count)], random))
      if random.chance(1, of: 3) { steps.append(Step(.settle)) }
    }
    return steps
  }

  private static let weights: [(Step.Verb, Int)] = [
    (.send, 12), (.receive, 9), (.delete, 7), (.hide, 4), (.purge, 1), (.create, 2), (.remove, 1),
    (.retain, 2), (.describe, 2), (.pass, 6), (.turn, 5), (.during, 4), (.crash, 3), (.kill, 2),
    (.restart, 2), (.fault, 2), (.fill, 1),
  ]

  private static func step(_ verb: Step.Verb, _ random: StableRandom) -> Step {
    func one(_ numbers: [Int]) -> Int { numbers[random.below(numbers.count)] }
    let queue = one([0, 0, 0, 1, 2])
    switch verb {
    case .send:
      return Step(
        .send, queue, one([1, 1, 1, 2, 5, 10]), one([4, 50, 50, 500, 2000, 16_000, 16_000]),
        one([0, 0, 0, 500, 60_000]))
    case .receive:
      return Step(.receive, queue, one([1, 1, 3, 10]), one([0, 1000, 30_000, 300_000]))
    case .delete: return Step(.delete, random.below(50))
    case .hide: return Step(.hide, random.below(50), one([0, 700, 20_000, 400_000]))
    case .retain: return Step(.retain, queue, one([10, 60, 345_600]))
    case .pass: return Step(.pass, one([1, 100, 150, 1000, 31_000, 90_000]))
    case .turn: return Step(.turn, random.below(5))
    case .during: return Step(.during, 1 + random.below(6), 1 + random.below(4))
    case .crash:
      return Step(
        .crash, random.below(30), random.below(1_000_000),
        random.chance(1, of: 3) ? 1 + random.below(20) : 0)
    case .kill: return Step(.kill, random.below(30))
    case .fault:
      return Step(
        .fault, random.below(7), random.below(12), random.below(4), random.chance(1, of: 4) ? 1 : 0)
    case .fill: return Step(.fill, one([0, 1, 70, 140, 300]))
    case .purge, .create, .remove, .describe: return Step(verb, queue)
    case .settle, .restart, .machine: return Step(verb)
    }
  }
}
