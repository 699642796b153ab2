// SPDX-License-Identifier: Apache-2.0

/// PostgreSQL: a table; a receive leases rows with FOR UPDATE SKIP LOCKED. Statements are prepared,
/// values binary, a batch is one statement. The commit of a lease is not awaited, by the setting of
/// its transaction; those of inserts and deletes are.
final class PostgresLoad: LoadProtocol {
  private enum Step { case start, prepare, insert, receive, delete }

  private let role: PeerRole
  private let work: PeerWork
  private let table: String
  private let insert: [UInt8]
  private var step = Step.start
  /// Messages of the round that are not deleted yet.
  private var left = 0
  private var ids: [UInt8] = []
  private var received = 0

  private static let bytea: Int32 = 17
  private static let bigint: Int32 = 20

  init(_ role: PeerRole, _ queue: String, _ work: PeerWork, _ body: [UInt8]) {
    (self.role, self.work) = (role, work)
    table = "\"\(queue)\""
    let value =
      work.batch == 1
      ? body : Self.array(of: Self.bytea, [[UInt8]](repeating: body, count: work.batch))
    insert = Self.execute("insert", value) + Self.sync
  }

  // MARK: Requests

  private static func message(_ type: Character?, _ body: [UInt8]) -> [UInt8] {
    var bytes = type.map { Array(String($0).utf8) } ?? []
    bytes.putBig(Int32(body.count + 4))
    return bytes + body
  }

  private static let sync = message("S", [])

  private static func text(_ text: String) -> [UInt8] { Array(text.utf8) + [0] }

  private static func prepare(_ name: String, _ statement: String) -> [UInt8] {
    message("P", text(name) + text(statement) + [0, 0])
  }

  /// Binds a prepared statement's parameter, if it has one, and executes it.
  private static func execute(_ name: String, _ value: [UInt8]?) -> [UInt8] {
    var bind: [UInt8] = [0]
    bind += text(name)
    // Parameters and results are binary.
    bind += [0, 1, 0, 1]
    bind.putBig(Int16(value == nil ? 0 : 1))
    if let value {
      bind.putBig(Int32(value.count))
      bind += value
    }
    bind += [0, 1, 0, 1]
    return message("B", bind) + message("E", [0, 0, 0, 0, 0])
  }

  private static func array(of type: Int32, _ values: [[UInt8]]) -> [UInt8] {
    var bytes: [UInt8] = []
    // Dimensions, nulls, type, length, first index.
    for number in [1, 0, type, Int32(values.count), 1] { bytes.putBig(number) }
    for value in values {
      bytes.putBig(Int32(value.count))
      bytes += value
    }
    return bytes
  }

  func connected(_ output: inout LoadOutput) -> Bool {
    var start: [UInt8] = []
    start.putBig(Int32(196_608))
    for text in ["user", "postgres", "database", "postgres", ""] { start += Self.text(text) }
    output.put(Self.message(nil, start))
    return false
  }

  private func prepare() -> [UInt8] {
    switch role {
    case .make:
      Self.message(
        "Q",
        Self.text(
          """
          CREATE TABLE \(table) (id bigserial PRIMARY KEY, body bytea NOT NULL,
          visible_at timestamptz NOT NULL DEFAULT now(), attempts int NOT NULL DEFAULT 0)
          """))
    case .drop: Self.message("Q", Self.text("DROP TABLE \(table)"))
    case .work:
      Self.prepare(
        "insert",
        "INSERT INTO \(table) (body) "
          + (work.batch == 1 ? "VALUES ($1::bytea)" : "SELECT unnest($1::bytea[])"))
        + Self.prepare("lazy", "SELECT set_config('synchronous_commit', 'off', true)")
        + Self.prepare(
          "receive",
          """
          UPDATE \(table) SET visible_at = now() + interval '30 s', attempts = attempts + 1
          WHERE id = ANY (ARRAY (SELECT id FROM \(table) WHERE visible_at <= now()
          ORDER BY id LIMIT $1::bigint FOR UPDATE SKIP LOCKED)) RETURNING id, body
          """)
        + Self.prepare("delete", "DELETE FROM \(table) WHERE id = ANY ($1::bigint[])") + Self.sync
    }
  }

  func begin(_ output: inout LoadOutput) {
    left = work.batch
    step = .insert
    output.put(insert)
  }

  private func receive(_ output: inout LoadOutput) {
    step = .receive
    received = 0
    ids = []
    var most: [UInt8] = []
    most.putBig(Int64(left))
    output.put(Self.execute("lazy", nil) + Self.execute("receive", most) + Self.sync)
  }

  private func delete(_ output: inout LoadOutput) {
    step = .delete
    let values = (0..<received).map { Array(ids[$0 * 8..<$0 * 8 + 8]) }
    output.put(Self.execute("delete", Self.array(of: Self.bigint, values)) + Self.sync)
  }

  // MARK: Answers

  func read(_ input: UnsafeRawBufferPointer, _ output: inout LoadOutput) throws -> LoadAnswer {
    var used = 0
    // All messages that are there, up to the one that says it is ready for more.
    while input.count - used >= 5 {
      let size = Int(input.big(Int32.self, at: used + 1))
      guard size >= 4, size < 1 << 30 else { throw LoadError("PostgreSQL: no message") }
      guard input.count - used >= size + 1 else { break }
      let (place, end) = (used + 5, used + size + 1)
      switch input[used] {
      case UInt8(ascii: "E"): throw LoadError("PostgreSQL: \(input.text(place..<end))")
      case UInt8(ascii: "R"):
        guard end - place == 4, input.big(Int32.self, at: place) == 0 else {
          throw LoadError("PostgreSQL wants a password.")
        }
      // A row of two columns is a message; that of the setting has one.
      case UInt8(ascii: "D") where end - place >= 14 && input.big(Int16.self, at: place) == 2:
        ids += input[place + 6..<place + 14]
        received += 1
      case UInt8(ascii: "Z"): return ready(end, &output)
      default: break
      }
      used = end
    }
    return used == 0 ? .partial : .taken(used)
  }

  private func ready(_ used: Int, _ output: inout LoadOutput) -> LoadAnswer {
    switch step {
    case .start:
      step = .prepare
      output.put(prepare())
    case .prepare: return .ended(used, messages: 0)
    case .insert:
      if !work.cycles { return .ended(used, messages: work.batch) }
      receive(&output)
    case .receive:
      if received == 0 { receive(&output) } else { delete(&output) }
    case .delete:
      left -= received
      if left <= 0 { return .ended(used, messages: work.batch) }
      receive(&output)
    }
    return .taken(used)
  }
}
