// SPDX-License-Identifier: Apache-2.0
internal import Penstock

/// One thing that happens in a history: something a client asks for, a turn of a thread of the
/// store, or something that befalls the machine.
///
/// As text a verb and numbers, such as `send 0 2 100`; steps of a history are separated by commas,
/// so that a history that failed can be given to a command. Numbers out of range are brought into
/// it, and missing ones are 0: every text is a history.
package struct Step: Hashable, Sendable, CustomStringConvertible {
  package enum Verb: String, CaseIterable, Sendable {
    /// Sends to queue #0 #1 messages of #2 bytes as one batch, delayed by #3 milliseconds. In a
    /// FIFO queue they go to group #4, in others if it is above 0; #5 above 0 is the deduplication
    /// id of the first, and each of the others has the next one. In others #6 is their priority.
    case send
    /// Receives from queue #0 up to #1 messages for #2 milliseconds.
    case receive
    /// Deletes by handle #0 of those received so far.
    case delete
    /// Lets the lease of handle #0 end in #1 milliseconds.
    case hide
    /// Gives the message of handle #0 up to the dead letters.
    case reject
    /// Looks at a part of queue #0, from where the last look at it ended.
    case look
    /// Deletes of the messages of queue #0 that were looked at those whose number is a multiple of
    /// #1.
    case sweep
    case purge
    /// Creates queue #0, FIFO if #1 is above 0; what was received #2 times goes to queue 3 if that
    /// is above 0.
    case create
    /// Deletes queue #0.
    case remove
    /// Together, deletes by handle #0, the newest being 0, and sends to queue #1 a message of #2
    /// bytes; group #3 and deduplication id #4 as in a send.
    case commit
    /// Sets the retention of queue #0 to #1 seconds.
    case retain
    /// Asks for a description of queue #0.
    case describe
    /// #0 milliseconds go by.
    case pass
    /// One turn of worker #0, if it has something to do.
    case turn
    /// Turns until no worker has anything to do.
    case settle
    /// The next #1 steps happen inside call #0 of the writer to the file system, counted from now.
    case during
    /// Power is lost before call #0 to the file system from now, the outcome by seed #1; #2 above 0
    /// loses it again #2 calls into the recovery.
    case crash
    /// The process is killed before call #0 from now.
    case kill
    /// The store is closed and opened again.
    case restart
    /// Call #1 from now of a kind (#0: write, data sync, sync, directory sync, rename, open, read)
    /// fails in a manner (#2: changes nothing, is done in part, is done, loses what is pending; #3
    /// above 0: for ever).
    case fault
    /// First of all: sectors of 512 bytes (#0 above 0; else 4096), torn ones may hold garbage (#1
    /// above 0), answers wait for the operating system only (#2 above 0). An exploration loses
    /// power again at every call of each recovery (#3 above 0), or damages the disk at the end (#4
    /// above 0). So many waiting messages of a queue stay in memory (#5 above 0; else 4).
    case machine
    /// The disk has room for #0 KiB more; 0 takes the limit away.
    case fill
  }

  package var verb: Verb
  package var numbers: [Int]

  package init(_ verb: Verb, _ numbers: Int...) {
    self.verb = verb
    self.numbers = numbers
  }

  /// Number `index`, brought into `range`.
  func number(_ index: Int, _ range: ClosedRange<Int>) -> Int {
    let number = index < numbers.count ? numbers[index] : 0
    return min(max(number, range.lowerBound), range.upperBound)
  }

  package var description: String {
    ([verb.rawValue] + numbers.map(String.init)).joined(separator: " ")
  }

  /// The steps of a history given as text; nil when a verb or a number cannot be read.
  package static func history(_ text: String) -> [Step]? {
    var steps: [Step] = []
    for part in text.split(separator: ",") {
      let words = part.split(separator: " ")
      guard let first = words.first, let verb = Verb(rawValue: String(first)) else { return nil }
      let numbers = words.dropFirst().map { Int($0) }
      guard !numbers.contains(nil) else { return nil }
      var step = Step(verb)
      step.numbers = numbers.compactMap { $0 }
      steps.append(step)
    }
    return steps
  }

  package static func text(_ history: [Step]) -> String {
    history.map(\.description).joined(separator: ", ")
  }
}
