console.log("static")
