// SPDX-License-Identifier: Apache-2.0

/// Makes the decisions of a simulation: which pending write survives, which operation comes next.
///
/// Code that draws every decision from a chooser runs at random, by seed, or through all that can
/// happen, without a change.
public protocol Chooser {
  /// One of `0..<count`; `count` is above zero. Where outcomes have an age, 0 is the oldest
  /// (nothing pending survived) and `count - 1` the newest.
  mutating func choose(_ count: Int) -> Int
}

extension Chooser {
  /// One element of `elements`, which is not empty.
  public mutating func pick<Element>(_ elements: [Element]) -> Element {
    elements[choose(elements.count)]
  }
}

/// Decides by seed.
///
/// A quarter of the seeds mostly takes the oldest outcome and a quarter mostly the newest: fair
/// coins alone would almost never keep or drop nearly all of many writes.
public struct SeededChooser: Chooser {
  private enum Leaning { case none, oldest, newest }

  private let random: StableRandom
  private let leaning: Leaning

  /// A chooser whose decisions depend on `seed` and on the questions alone. Copies share one
  /// stream.
  public init(seed: UInt64) {
    random = StableRandom(seed: seed)
    leaning = [.none, .none, .oldest, .newest][random.below(4)]
  }

  /// By seed and leaning.
  public mutating func choose(_ count: Int) -> Int {
    precondition(count > 0, "nothing to choose from")
    if leaning != .none && random.chance(7, of: 8) { return leaning == .oldest ? 0 : count - 1 }
    return random.below(count)
  }
}

/// Goes through every combination of decisions, one per round, in order.
///
/// ```swift
/// var chooser = ExhaustiveChooser()
/// while chooser.next() { check(disk.crashed(choosing: &chooser)) }
/// ```
///
/// A round asks the same questions as the round before, up to the first answer that differs; what
/// it asks after that may depend on the answers.
public struct ExhaustiveChooser: Chooser {
  /// The answers of this round and how many there were to choose from.
  private var path: [(answer: Int, count: Int)] = []
  /// How many questions this round has asked.
  private var position = 0
  /// How many rounds were started.
  public private(set) var rounds = 0

  /// A chooser before its first round.
  public init() {}

  /// Starts the next round; false when all combinations were tried.
  public mutating func next() -> Bool {
    precondition(position == path.count, "the round asked fewer questions than the one before")
    position = 0
    if rounds > 0 {
      while let last = path.last, last.answer + 1 == last.count { path.removeLast() }
      if path.isEmpty { return false }
      path[path.count - 1].answer += 1
    }
    rounds += 1
    return true
  }

  /// The answer of this round to its next question.
  public mutating func choose(_ count: Int) -> Int {
    precondition(count > 0, "nothing to choose from")
    if position == path.count { path.append((answer: 0, count: count)) }
    precondition(path[position].count == count, "the round asked other questions than before")
    position += 1
    return path[position - 1].answer
  }
}
