from utnet.cli.main import train_script

if __name__ == "__main__":
    train_script()
