// SPDX-License-Identifier: Apache-2.0
import Synchronization

#if canImport(Glibc)
  import Glibc
#elseif canImport(Musl)
  import Musl
#else
  import Darwin
#endif

/// SQLite in this process, from the machine's own library: a table in WAL mode. One connection that
/// all threads share, as there is one writer at a time in any case; a commit for each request.
struct SQLitePeer: PeerSystem {
  let name = "sqlite"
  let durability = "WAL, synchronous=FULL: fdatasync in each commit; leases written, not synced"
  var directory: String
  var body: Int

  static var isInstalled: Bool { SQLite.library != nil }

  func run(_ work: PeerWork, queue: String, _ plan: LoadPlan) async throws -> Measurement? {
    let path = "\(directory)/\(queue).sqlite"
    let base = try SQLite(path)
    defer { for suffix in ["", "-wal", "-shm"] { unlink(path + suffix) } }
    try base.execute("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL")
    try base.execute(
      """
      CREATE TABLE messages (id INTEGER PRIMARY KEY, body BLOB NOT NULL,
      visible_at INTEGER NOT NULL DEFAULT 0, attempts INTEGER NOT NULL DEFAULT 0)
      """)
    let body = [UInt8](repeating: 0x78, count: body)
    let database = Mutex(try Statements(base))
    defer { database.withLock { $0.close() } }
    return try ThreadedLoad.run(work.producers, plan) { _ in
      try database.withLock { try $0.send(body, work.batch) }
      var left = work.cycles ? work.batch : 0
      while left > 0 {
        let most = left
        left -= try database.withLock { statements in
          let ids = try statements.receive(most)
          try statements.delete(ids)
          return ids.count
        }
      }
      return work.batch
    }
  }

  private struct Statements {
    let base: SQLite
    let insert, lease, delete: OpaquePointer

    init(_ base: SQLite) throws {
      self.base = base
      insert = try base.prepare("INSERT INTO messages (body) VALUES (?1)")
      lease = try base.prepare(
        """
        UPDATE messages SET visible_at = unixepoch() + 30, attempts = attempts + 1
        WHERE id IN (SELECT id FROM messages WHERE visible_at <= unixepoch()
        ORDER BY id LIMIT ?1) RETURNING id, body
        """)
      delete = try base.prepare("DELETE FROM messages WHERE id = ?1")
    }

    func send(_ body: [UInt8], _ count: Int) throws {
      if count > 1 { try base.execute("BEGIN IMMEDIATE") }
      for _ in 0..<count { try base.run(insert, body) }
      if count > 1 { try base.execute("COMMIT") }
    }

    func receive(_ most: Int) throws -> [Int64] {
      // The next commit that is synced takes the lease along.
      try base.execute("PRAGMA synchronous = NORMAL")
      let ids = try base.run(lease, Int64(most))
      try base.execute("PRAGMA synchronous = FULL")
      return ids
    }

    func delete(_ ids: [Int64]) throws {
      if ids.count > 1 { try base.execute("BEGIN IMMEDIATE") }
      for id in ids { _ = try base.run(delete, id) }
      if ids.count > 1 { try base.execute("COMMIT") }
    }

    func close() { for statement in [insert, lease, delete] { base.finalize(statement) } }
  }
}

/// A connection, closed with its last reference.
private final class SQLite {
  typealias Open =
    @convention(c) (
      UnsafePointer<CChar>, UnsafeMutablePointer<OpaquePointer?>, Int32, UnsafePointer<CChar>?
    ) -> Int32
  typealias Execute =
    @convention(c) (
      OpaquePointer, UnsafePointer<CChar>, UnsafeRawPointer?, UnsafeRawPointer?, UnsafeRawPointer?
    ) -> Int32
  typealias Prepare =
    @convention(c) (
      OpaquePointer, UnsafePointer<CChar>, Int32, UnsafeMutablePointer<OpaquePointer?>,
      UnsafeRawPointer?
    ) -> Int32
  typealias BindBlob =
    @convention(c) (OpaquePointer, Int32, UnsafeRawPointer?, Int32, Int) -> Int32
  typealias BindNumber = @convention(c) (OpaquePointer, Int32, Int64) -> Int32
  typealias OfStatement = @convention(c) (OpaquePointer) -> Int32
  typealias Column = @convention(c) (OpaquePointer, Int32) -> Int64
  typealias Message = @convention(c) (OpaquePointer) -> UnsafePointer<CChar>?

  struct Library: Sendable {
    let open: Open
    let execute: Execute
    let prepare: Prepare
    let bindBlob: BindBlob
    let bindNumber: BindNumber
    let step, reset, finalize, close: OfStatement
    let column: Column
    let message: Message
  }

  static let library: Library? = {
    guard let handle = dlopen("libsqlite3.so.0", RTLD_NOW) else { return nil }
    func find<T>(_ name: String, _ type: T.Type) -> T? {
      dlsym(handle, "sqlite3_" + name).map { unsafeBitCast($0, to: type) }
    }
    guard let open = find("open_v2", Open.self), let execute = find("exec", Execute.self),
      let prepare = find("prepare_v2", Prepare.self),
      let bindBlob = find("bind_blob", BindBlob.self),
      let bindNumber = find("bind_int64", BindNumber.self),
      let step = find("step", OfStatement.self), let reset = find("reset", OfStatement.self),
      let finalize = find("finalize", OfStatement.self),
      let close = find("close_v2", OfStatement.self),
      let column = find("column_int64", Column.self), let message = find("errmsg", Message.self)
    else { return nil }
    return Library(
      open: open, execute: execute, prepare: prepare, bindBlob: bindBlob, bindNumber: bindNumber,
      step: step, reset: reset, finalize: finalize, close: close, column: column, message: message)
  }()

  private let library: Library
  private let base: OpaquePointer
  private static let (row, done): (Int32, Int32) = (100, 101)

  init(_ path: String) throws {
    guard let library = Self.library else { throw LoadError("no libsqlite3.so.0") }
    var base: OpaquePointer?
    // To read and write, made if it is not there, for several threads.
    guard library.open(path, &base, 0x2 | 0x4 | 0x10000, nil) == 0, let base else {
      throw LoadError("SQLite cannot open \(path)")
    }
    (self.library, self.base) = (library, base)
  }

  deinit { _ = library.close(base) }

  private func check(_ status: Int32, _ wanted: Int32 = 0) throws {
    guard status == wanted else {
      throw LoadError("SQLite: \(library.message(base).map { String(cString: $0) } ?? "")")
    }
  }

  func execute(_ text: String) throws { try check(library.execute(base, text, nil, nil, nil)) }

  func prepare(_ text: String) throws -> OpaquePointer {
    var statement: OpaquePointer?
    try check(library.prepare(base, text, -1, &statement, nil))
    guard let statement else { throw LoadError("SQLite: no statement") }
    return statement
  }

  func finalize(_ statement: OpaquePointer) { _ = library.finalize(statement) }

  func run(_ statement: OpaquePointer, _ blob: [UInt8]) throws {
    try blob.withUnsafeBytes { bytes in
      // The bytes stay where they are until the statement has run.
      try check(library.bindBlob(statement, 1, bytes.baseAddress, Int32(bytes.count), 0))
      try check(library.step(statement), Self.done)
    }
    try check(library.reset(statement))
  }

  /// Answers the first column of all rows.
  func run(_ statement: OpaquePointer, _ number: Int64) throws -> [Int64] {
    try check(library.bindNumber(statement, 1, number))
    var rows: [Int64] = []
    var status = library.step(statement)
    while status == Self.row {
      rows.append(library.column(statement, 0))
      status = library.step(statement)
    }
    try check(status, Self.done)
    try check(library.reset(statement))
    return rows
  }
}
