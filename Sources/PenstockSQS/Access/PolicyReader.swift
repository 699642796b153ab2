// SPDX-License-Identifier: Apache-2.0

/// Reads policy documents.
struct PolicyReader {
  private let kind: AccessPolicy.Kind
  /// Version 2012-10-17 knows variables.
  private let variables: Bool

  static func parse(_ bytes: [UInt8]) throws(PolicyError) -> JSONNode {
    do throws(JSONError) {
      return try JSONParser.parse(bytes).root
    } catch {
      throw PolicyError("not JSON: \(error.reason) at byte \(error.offset)")
    }
  }

  /// Reads the document and all its statements.
  static func statements(
    of root: JSONNode, _ kind: AccessPolicy.Kind
  ) throws(PolicyError) -> [PolicyStatement] {
    let members = try members(of: root, ["Version", "Id", "Statement"], "the policy")
    var variables = false
    var statement: JSONNode?
    for (name, value) in members {
      switch name {
      case "Version":
        let version = try text(value, name)
        guard version == "2012-10-17" || version == "2008-10-17" else {
          throw PolicyError("Version: neither 2012-10-17 nor 2008-10-17")
        }
        variables = version == "2012-10-17"
      case "Id": _ = try text(value, name)
      default: statement = value
      }
    }
    guard let statement else { throw PolicyError("the policy: Statement is missing") }
    let nodes = try list(statement, "Statement")
    if kind == .queue, nodes.count > AccessPolicy.maximumStatements {
      throw PolicyError(
        "\(nodes.count) statements were found in the submitted policy, max allowed is "
          + "\(AccessPolicy.maximumStatements)", statements: nodes.count)
    }
    let reader = PolicyReader(kind: kind, variables: variables)
    var statements: [PolicyStatement] = []
    for (index, node) in nodes.enumerated() {
      let place = statement.kind == .array ? "Statement[\(index)]" : "Statement"
      do throws(PolicyError) {
        statements.append(try reader.statement(node))
      } catch {
        throw error.at(place)
      }
    }
    return statements
  }

  private func statement(_ node: JSONNode) throws(PolicyError) -> PolicyStatement {
    let names = [
      "Sid", "Effect", "Principal", "NotPrincipal", "Action", "NotAction", "Resource",
      "NotResource", "Condition",
    ]
    let members = try Self.members(of: node, names, "the statement")
    func member(_ name: String) -> JSONNode? { members.first { $0.name == name }?.value }
    /// The member of this name or the one that begins with `Not`; one of them or none.
    func choice(
      _ name: String
    ) throws(PolicyError) -> (name: String, value: JSONNode, isInverted: Bool)? {
      switch (member(name), member("Not" + name)) {
      case (nil, nil): return nil
      case (let value?, nil): return (name, value, false)
      case (nil, let value?): return ("Not" + name, value, true)
      default: throw PolicyError("both \(name) and Not\(name)")
      }
    }
    if let sid = member("Sid") { _ = try Self.text(sid, "Sid") }
    guard let effect = member("Effect") else { throw PolicyError("Effect is missing") }
    let effectText = try Self.text(effect, "Effect")
    guard effectText == "Allow" || effectText == "Deny" else {
      throw PolicyError("Effect: neither Allow nor Deny")
    }
    var principals: PolicyStatement.Choice<PrincipalPattern>?
    switch (try choice("Principal"), kind) {
    case (let member?, .queue):
      principals = .init(
        patterns: try self.principals(member.value, member.name), isInverted: member.isInverted)
    case (nil, .queue): throw PolicyError("Principal is missing")
    case (let member?, .identity):
      throw PolicyError("\(member.name): a policy of a principal has none")
    case (nil, .identity): break
    }
    guard let action = try choice("Action") else { throw PolicyError("Action is missing") }
    let actions = try actions(action.value, action.name)
    var resources: PolicyStatement.Choice<ARNPattern>?
    if let member = try choice("Resource") {
      resources = .init(
        patterns: try self.resources(member.value, member.name), isInverted: member.isInverted)
    } else if kind == .identity {
      throw PolicyError("Resource is missing")
    }
    return PolicyStatement(
      isAllow: effectText == "Allow", principals: principals,
      actions: .init(patterns: actions, isInverted: action.isInverted), resources: resources,
      conditions: try member("Condition").map(conditions) ?? [])
  }

  private func principals(
    _ node: JSONNode, _ place: String
  ) throws(PolicyError) -> [PrincipalPattern] {
    if node.kind == .string {
      guard node.isString("*") else {
        throw PolicyError("\(place): a text other than *")
      }
      return [.anyone]
    }
    let members = try Self.members(of: node, ["AWS", "Service"], place)
    guard !members.isEmpty else { throw PolicyError("\(place): empty") }
    var patterns: [PrincipalPattern] = []
    for (name, value) in members {
      let place = "\(place).\(name)"
      for text in try Self.texts(value, place) {
        do throws(PolicyError) {
          patterns.append(
            name == "AWS" ? try PrincipalPattern(aws: text) : try PrincipalPattern(service: text))
        } catch {
          throw error.at(place)
        }
      }
    }
    try Self.limit(patterns.count, AccessPolicy.maximumPrincipals, "principals", place)
    return patterns
  }

  private func actions(_ node: JSONNode, _ place: String) throws(PolicyError) -> [ActionPattern] {
    let texts = try Self.texts(node, place)
    if kind == .queue { try Self.limit(texts.count, AccessPolicy.maximumActions, "actions", place) }
    var patterns: [ActionPattern] = []
    for text in texts {
      do throws(PolicyError) {
        if let pattern = try ActionPattern(text) {
          patterns.append(pattern)
        } else if kind == .queue {
          throw PolicyError("\"\(SQSError.echo(text, 64))\" is of another service")
        }
      } catch {
        throw error.at(place)
      }
    }
    return patterns
  }

  private func resources(_ node: JSONNode, _ place: String) throws(PolicyError) -> [ARNPattern] {
    var patterns: [ARNPattern] = []
    for text in try Self.texts(node, place) {
      do throws(PolicyError) {
        guard text == "*" || text.utf8.starts(with: "arn:".utf8) else {
          throw PolicyError("\"\(SQSError.echo(text, 64))\" is neither * nor an ARN")
        }
        patterns.append(
          ARNPattern(try PolicyPattern(text, wildcards: true, variables: variables)))
      } catch {
        throw error.at(place)
      }
    }
    return patterns
  }

  private func conditions(_ node: JSONNode) throws(PolicyError) -> [PolicyCondition] {
    var conditions: [PolicyCondition] = []
    for (name, value) in try Self.members(of: node, nil, "Condition") {
      let place = "Condition.\(SQSError.echo(name, 64))"
      let form: ConditionOperator
      do throws(PolicyError) {
        form = try ConditionOperator(name)
      } catch {
        throw error.at(place)
      }
      let keys = try Self.members(of: value, nil, place, ignoringCase: true)
      guard !keys.isEmpty else { throw PolicyError("\(place): empty") }
      if kind == .queue {
        try Self.limit(
          conditions.count + keys.count, AccessPolicy.maximumConditions, "conditions", "Condition")
      }
      for (key, value) in keys {
        let place = "\(place).\(SQSError.echo(key, 64))"
        let values = try Self.values(value, place)
        do throws(PolicyError) {
          conditions.append(
            try PolicyCondition(form, key: key, values: values, variables: variables))
        } catch {
          throw error.at(place)
        }
      }
    }
    return conditions
  }

  private static func limit(
    _ count: Int, _ limit: Int, _ what: String, _ place: String
  ) throws(PolicyError) {
    guard count <= limit else {
      throw PolicyError("\(place): \(count) \(what) were found, max allowed is \(limit)")
    }
  }
}

// What all parts of a document have in common.
extension PolicyReader {
  /// The members of an object, each of which may come once.
  ///
  /// - Parameter names: those that may come; nil for any.
  private static func members(
    of node: JSONNode, _ names: [String]?, _ place: String, ignoringCase: Bool = false
  ) throws(PolicyError) -> [(name: String, value: JSONNode)] {
    guard node.kind == .object else { throw PolicyError("\(place): not an object") }
    var seen: Set<String> = []
    var result: [(name: String, value: JSONNode)] = []
    for (key, value) in node.members {
      let name = try text(key, place)
      if let names, !names.contains(where: { $0.utf8.elementsEqual(name.utf8) }) {
        throw PolicyError("\(place): no member is called \"\(SQSError.echo(name, 64))\"")
      }
      guard seen.insert(ignoringCase ? name.lowercased() : name).inserted else {
        throw PolicyError("\(place): \(SQSError.echo(name, 64)) comes twice")
      }
      result.append((name, value))
    }
    return result
  }

  /// One value, or those of a list that is not empty.
  private static func list(_ node: JSONNode, _ place: String) throws(PolicyError) -> [JSONNode] {
    guard node.kind == .array else { return [node] }
    let elements = node.elements
    guard !elements.isEmpty else { throw PolicyError("\(place): an empty list") }
    return elements
  }

  private static func text(_ node: JSONNode, _ place: String) throws(PolicyError) -> String {
    guard node.kind == .string else { throw PolicyError("\(place): not a text") }
    guard let text = String(validating: node.stringBytes, as: UTF8.self) else {
      throw PolicyError("\(place): half of a character")
    }
    return text
  }

  private static func texts(_ node: JSONNode, _ place: String) throws(PolicyError) -> [String] {
    var texts: [String] = []
    for element in try list(node, place) { texts.append(try text(element, place)) }
    return texts
  }

  /// The values of a condition: texts, numbers, true and false.
  private static func values(_ node: JSONNode, _ place: String) throws(PolicyError) -> [String] {
    var values: [String] = []
    for element in try list(node, place) {
      switch element.kind {
      case .number: values.append(element.number ?? "")
      case .yes: values.append("true")
      case .no: values.append("false")
      default: values.append(try text(element, place))
      }
    }
    return values
  }

  /// Takes the blanks between values out of a text that is JSON.
  static func withoutBlanks(_ bytes: [UInt8]) -> [UInt8] {
    var result: [UInt8] = []
    result.reserveCapacity(bytes.count)
    var (isInString, isEscaped) = (false, false)
    for byte in bytes {
      if isInString {
        result.append(byte)
        isInString = isEscaped || byte != UInt8(ascii: "\"")
        isEscaped = !isEscaped && byte == UInt8(ascii: "\\")
      } else if byte > 0x20 {
        result.append(byte)
        isInString = byte == UInt8(ascii: "\"")
      }
    }
    return result
  }
}
