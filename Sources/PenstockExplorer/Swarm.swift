// SPDX-License-Identifier: Apache-2.0
internal import PenstockTesting

/// Large histories by seed. Each seed leaves out some operations and some faults, so that the
/// others meet more often than if everything happened everywhere. Odd seeds have standard queues
/// alone; even ones have FIFO queues, dead letters and transactions as well.
enum Swarm {
  static func history(seed: UInt64) -> [Step] {
    let random = StableRandom(seed: seed &* 0x9e37_79b9_7f4a_7c15)
    if seed % 2 == 0 { return mixed(random) }
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

  /// Queues 0, 1 and 2 may be FIFO, and give their dead letters to queue 3 if that is alike.
  private static func mixed(_ random: StableRandom) -> [Step] {
    let isFIFO = random.below(2)
    let kinds = (0...3).map { $0 == 3 || random.chance(3, of: 4) ? isFIFO : 1 - isFIFO }
    let receives = (0...3).map { _ in [0, 1, 1, 2][random.below(4)] }
    func create(_ queue: Int) -> Step {
      let isDead = queue == 3 || kinds[queue] != kinds[3]
      return Step(.create, queue, kinds[queue], isDead ? 0 : receives[queue])
    }
    var steps = [
      Step(
        .machine, random.below(2), random.below(2), random.chance(1, of: 6) ? 1 : 0, 0, 0,
        [2, 4, 16, 64][random.below(4)]),
      create(3), create(0), Step(.settle),
    ]
    var verbs: [Step.Verb] = []
    let more: [(Step.Verb, Int)] = [(.commit, 6), (.look, 4), (.sweep, 4), (.reject, 4)]
    for (verb, weight) in weights + more where verb == .send || random.chance(2, of: 3) {
      verbs += Array(repeating: verb, count: weight)
    }
    func one(_ numbers: [Int]) -> Int { numbers[random.below(numbers.count)] }
    for _ in 0..<(10 + random.below(50)) {
      let verb = verbs[random.below(verbs.count)]
      var step = step(verb, random)
      let queue = one([0, 0, 0, 1, 2, 3])
      switch verb {
      case .send:
        step.numbers[0] = queue
        step.numbers += [random.below(3), one([0, 0, 1, 2, 3]), one([0, 0, 0, 0, 1, 3])]
      case .receive:
        step.numbers[0] = queue
        if random.chance(1, of: 2) { step.numbers[2] = 0 }
      case .purge, .remove, .describe: step.numbers[0] = queue
      case .create: step = create(queue)
      case .look: step = Step(.look, queue)
      case .sweep: step = Step(.sweep, queue, one([1, 2, 3]))
      case .reject: step = Step(.reject, random.below(50))
      case .commit:
        step = Step(
          .commit, one([0, 0, 0, 1, 2, 9]), queue, one([4, 500, 2000]), random.below(3),
          one([0, 1, 2]))
      default: break
      }
      steps.append(step)
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
    case .settle, .restart, .machine, .commit, .look, .sweep, .reject: return Step(verb)
    }
  }
}
